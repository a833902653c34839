"""What can go wrong on a device, split by what the catcher does next?

DaemonError                     daemon.error
├── ConfigError                 config.invalid           fix the configuration file or the flag
│   └── InUseError              config.in_use            another process holds the state directory
├── StuckError                  daemon.stuck             the last run stood still and its watchdog, or its supervisor, ended it
├── EngineError                 engine.error             about an engine or a model in it
│   ├── EngineUnknownError      engine.unknown           no backend of that name is registered
│   ├── EngineMissingError      engine.missing           install the extra
│   ├── EngineOptionError       engine.bad_option        the manifest asks what this engine cannot honour
│   ├── ModelLoadError          engine.load_failed       the file is not a model this engine reads
│   ├── InferenceError          engine.inference_failed  the engine failed on valid inputs
│   │   ├── EngineCrashedError  engine.crashed           the engine's own process ended under it
│   │   └── EngineHungError     engine.hung              no answer in the time a request may take
│   └── ProcessingError         engine.unknown_step      the manifest names a processing step not known here
├── RequestError                request.invalid          the caller's fault: 4xx
│   ├── RequestTooLargeError    request.too_large
│   ├── HeaderTooLargeError     request.header_too_large
│   ├── RequestTimeoutError     request.timeout          it did not arrive in time
│   ├── RouteNotFoundError      request.unknown_route
│   ├── MethodError             request.bad_method
│   ├── ForbiddenError          request.forbidden        the configuration does not allow it
│   ├── RegionError             request.shared_memory    a region that is unknown, taken, too small or gone
│   └── ModelNotFoundError      request.unknown_model
├── UnavailableError            serving.unavailable      not now: 503, worth a retry elsewhere or later
│   ├── OverloadedError         serving.overloaded       too many requests or connections at once
│   ├── DrainingError           serving.draining         the daemon is about to stop
│   └── RetiredError            serving.retired          another version has taken this one's place: ask that
├── UpdateError                 update.failed            ends an update; the old version goes on serving
│   ├── FetchError              update.fetch_failed      worth a retry: network or store
│   ├── DiskFullError           update.disk_full         nothing half-written is left behind
│   ├── UnsuitableError         update.unsuitable        the artifact demands what this device lacks
│   ├── MemoryShortError        update.memory_short      it would not fit into the memory the daemon may use
│   ├── SelfTestError           update.self_test_failed  wrong outputs, a crash, or a hang in the test process
│   ├── ProbationError          update.probation_failed  it went live and misbehaved
│   ├── HelperTimeoutError      update.timed_out         the helper process had not answered in its time
│   ├── NoActiveVersionError    update.no_active         a shadow or split, and nothing beside which it could run
│   ├── CrashLoopError          update.crash_loop        the daemon kept dying under a version that was committed
│   ├── InterruptedUpdateError  update.interrupted       power cuts or crashes, too often in one update
│   └── SupersededError         update.superseded        a newer desired state wants something else
├── BatchError                  batch.failed             what lies in the files of a batch run cannot be read or written
├── ExtraMissingError           extra.missing            an optional part is not installed; the message names the extra
├── CommandError                command.failed           a diagnostic the operator asked for could not be done
│   └── CommandUnknownError     command.unknown          this version does not offer it
├── EnrolmentError              enrolment.failed         the fleet refused, or is not the one the token names
├── StoreError                  store.error              the device's own durable state cannot be read or written
│   └── StoreDamagedError       store.damaged            it is no database any more
└── PackagingError              packaging.failed         a device package cannot be built on this machine

Refusals of messages and signatures are `runtime.contract.errors`; both trees share the rule: codes are stable, texts are not.
"""

from typing import ClassVar


class DaemonError(Exception):
    """Root of the device side's errors; `code` travels in events, reports and HTTP bodies."""

    code: ClassVar[str] = "daemon.error"


class ConfigError(DaemonError):
    code = "config.invalid"


class StuckError(DaemonError):
    code = "daemon.stuck"


class InUseError(ConfigError):
    code = "config.in_use"


class EngineError(DaemonError):
    code = "engine.error"


class EngineUnknownError(EngineError):
    code = "engine.unknown"


class EngineMissingError(EngineError):
    code = "engine.missing"


class EngineOptionError(EngineError):
    code = "engine.bad_option"


class ModelLoadError(EngineError):
    code = "engine.load_failed"


class InferenceError(EngineError):
    code = "engine.inference_failed"


class EngineCrashedError(InferenceError):
    """is_final: the version that met it is broken for good; False where its process is started again."""

    code = "engine.crashed"
    is_final = True


class EngineHungError(InferenceError):
    """is_final: as of EngineCrashedError."""

    code = "engine.hung"
    is_final = True


class ProcessingError(EngineError):
    code = "engine.unknown_step"


class RequestError(DaemonError):
    code = "request.invalid"


class RequestTooLargeError(RequestError):
    code = "request.too_large"


class HeaderTooLargeError(RequestError):
    code = "request.header_too_large"


class RequestTimeoutError(RequestError):
    code = "request.timeout"


class RouteNotFoundError(RequestError):
    code = "request.unknown_route"


class MethodError(RequestError):
    code = "request.bad_method"


class ForbiddenError(RequestError):
    code = "request.forbidden"


class RegionError(RequestError):
    code = "request.shared_memory"


class ModelNotFoundError(RequestError):
    code = "request.unknown_model"


class UnavailableError(DaemonError):
    code = "serving.unavailable"


class OverloadedError(UnavailableError):
    code = "serving.overloaded"


class DrainingError(UnavailableError):
    code = "serving.draining"


class RetiredError(UnavailableError):
    code = "serving.retired"


class UpdateError(DaemonError):
    code = "update.failed"


class FetchError(UpdateError):
    code = "update.fetch_failed"


class DiskFullError(UpdateError):
    code = "update.disk_full"


class UnsuitableError(UpdateError):
    code = "update.unsuitable"


class MemoryShortError(UpdateError):
    code = "update.memory_short"


class SelfTestError(UpdateError):
    code = "update.self_test_failed"


class ProbationError(UpdateError):
    code = "update.probation_failed"


class HelperTimeoutError(UpdateError):
    code = "update.timed_out"


class NoActiveVersionError(UpdateError):
    code = "update.no_active"


class CrashLoopError(UpdateError):
    code = "update.crash_loop"


class InterruptedUpdateError(UpdateError):
    code = "update.interrupted"


class SupersededError(UpdateError):
    code = "update.superseded"


class BatchError(DaemonError):
    code = "batch.failed"


class ExtraMissingError(DaemonError):
    code = "extra.missing"


class CommandError(DaemonError):
    code = "command.failed"


class CommandUnknownError(CommandError):
    code = "command.unknown"


class EnrolmentError(DaemonError):
    code = "enrolment.failed"


class StoreError(DaemonError):
    code = "store.error"


class StoreDamagedError(StoreError):
    code = "store.damaged"


class PackagingError(DaemonError):
    code = "packaging.failed"


def reason(error: Exception) -> str:
    """What the system says is wrong, without the number and the path that an OSError's text repeats."""
    return getattr(error, "strerror", None) or str(error)
