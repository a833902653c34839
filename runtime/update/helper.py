"""What runs outside the serving process: signatures, downloads, digests, and the first run of a new model?

    python -m runtime.update.helper accept|fetch|verify|test

One request as a JSON line on stdin, one reply as a JSON line on stdout; exit 0 done, 4 failed, 6 refused. tuf,
cryptography and, for the self-test, the engine are loaded here and go with the process: a model that crashes, hangs or
eats memory while it is tested takes nothing else along. The daemon's end of stdin stays open; when it closes, the daemon
is gone and so is the helper: no orphan writes beside its successor.
"""

import logging
import os
import re
import resource
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from runtime.contract.artifact import Manifest
from runtime.contract.errors import ContractError
from runtime.errors import DaemonError, DiskFullError, EngineError, MemoryShortError, SelfTestError, UpdateError
from runtime.update.requests import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_REFUSED,
    AcceptRequest,
    FetchRequest,
    Reply,
    Task,
    TestRequest,
    VerifyRequest,
)

log = logging.getLogger(__name__ if __name__ != "__main__" else "runtime.update.helper")

NICENESS = 5
# How engines say it: std::bad_alloc (onnxruntime), "could not allocate", "out of memory" (OpenVINO, TensorRT).
_OUT_OF_MEMORY = re.compile(r"bad_?alloc|allocat|out of memory", re.IGNORECASE)


def accept(request: AcceptRequest) -> Reply:
    """Verify a signed desired state or command. Raises ContractError's kin, or FetchError without the store."""
    from runtime.contract import trust
    from runtime.contract.canonical import COMMAND_LIMIT, DESIRED_LIMIT, read_message
    from runtime.contract.deployment import Desired
    from runtime.contract.errors import ExpiredError, WrongDeviceError
    from runtime.contract.telemetry import Command
    from runtime.identity import read_identity
    from runtime.update.sources import open_source, trusting

    state_dir = Path(request.state_dir)
    identity = read_identity(state_dir)
    device = identity.device if identity else ""
    with open_source(state_dir, "") as source, trusting(state_dir, source, now_s=request.now_s) as releases:
        keys = releases.director_keys()
    if request.kind == "desired":
        desired = trust.open_envelope(request.envelope, keys, Desired, DESIRED_LIMIT)
        held = read_message(request.held, Desired, DESIRED_LIMIT) if request.held else None
        return Reply(payload=desired.raw, is_new=trust.check_desired(desired, device, held))
    command = trust.open_envelope(request.envelope, keys, Command, COMMAND_LIMIT)
    if command.value.device != device:
        raise WrongDeviceError(f"command is for {command.value.device!r}, this is {device!r}")
    if request.now_s >= command.value.expires:
        raise ExpiredError(f"command {command.value.id} expired {request.now_s - command.value.expires} s ago")
    return Reply(payload=command.raw, is_new=True)


def fetch(request: FetchRequest) -> Reply:
    """Find the artifact in the signed release metadata, then bring whatever of it is not on the device yet.

    figures: blobs and bytes that were missing; fetched_bytes and copied_bytes say how they came, fallbacks how many deltas failed.
    """
    from runtime.contract.trust import check_floor
    from runtime.files import write_durably
    from runtime.update.delta import LocalChunks, files_of_model
    from runtime.update.disk import blobs_of, require_budget
    from runtime.update.download import Brought
    from runtime.update.memory_fit import least_need, require_room
    from runtime.update.slots import Slots
    from runtime.update.sources import open_source, trusting
    from runtime.update.verify import require_suitable

    state_dir, wanted = Path(request.state_dir), request.artifact
    folder = state_dir / "blobs" / "sha256"
    with open_source(state_dir, request.source, request.bytes_per_s) as source:
        last_contact_s = request.last_contact_s if request.source else None
        with trusting(state_dir, source, now_s=request.now_s, last_contact_s=last_contact_s) as releases:
            received = releases.manifest(request.model, wanted.version, wanted.target, wanted.sha256)
        check_floor(received.value, request.floor)
        require_suitable(received.value, request.profile)
        require_room(least_need(received.value), request.rooms)
        needed = {received.sha256, *(entry.sha256 for entry in received.value.files)}
        Slots(state_dir).collect_garbage(needed | blobs_of(folder, request.keep))
        missing = missing_blobs(received.value, folder)
        to_come = bytes_to_come(missing, folder)
        require_budget(state_dir, to_come, request.disk_bytes)
        require_space(folder, to_come, request.reserve_bytes)
        write_durably(folder / received.sha256, received.raw)
        files = files_of_model(state_dir / "models", request.model)
        local = LocalChunks(files) if files else None
        brought = [source.blob(sha256, size_bytes, folder, local) for sha256, size_bytes in missing.items()]
    totals = {name: sum(getattr(one, name) for one in brought) for name in Brought._fields}
    figures = {"blobs": len(missing), "bytes": sum(missing.values())} | totals
    detail = f"{totals['fallbacks']} deltas came out wrong and were fetched whole" if totals["fallbacks"] else ""
    log.info("%s %s: %s%s", request.model, wanted.version, _spell(figures), f"; {detail}" if detail else "")
    return Reply(figures=figures, detail=detail)


def verify(request: VerifyRequest) -> Reply:
    """Check a filled slot against the artifact's digests and the device's rules."""
    from runtime.update.verify import require_floor, require_suitable, verify_artifact

    manifest = verify_artifact(Path(request.directory), request.model, request.artifact).value
    require_floor(manifest, request.floor)
    require_suitable(manifest, request.profile)
    return Reply(payload=manifest.rollback_floor.encode())


def test(request: TestRequest) -> Reply:
    """Run the golden inputs through the model, in this process, under its memory cap."""
    from runtime.memory import share_one_arena
    from runtime.update.selftest import run_self_test

    share_one_arena()  # as the daemon does, so that what is measured here holds there
    cap = _capped(request.memory_bytes)
    try:
        return Reply(figures=run_self_test(Path(request.directory), request.repeats))
    except (MemoryError, EngineError) as error:
        if cap is None or not (isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error))):
            raise
        detail = str(error).splitlines()[0] if str(error) else "MemoryError"
        raise MemoryShortError(f"the model needs more than the {cap} bytes that a process may have here: {detail}") from error


TASKS: dict[Task, tuple[type[Any], Callable[[Any], Reply]]] = {
    Task.ACCEPT: (AcceptRequest, accept),
    Task.FETCH: (FetchRequest, fetch),
    Task.VERIFY: (VerifyRequest, verify),
    Task.TEST: (TestRequest, test),
}


def _capped(memory_bytes: int) -> int | None:
    """Hold this process to so many bytes, or to the tighter limit it was born with. Returns the cap, None for none."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    caps = [cap for cap in (memory_bytes, hard) if cap > 0]  # 0: not asked for; RLIM_INFINITY is negative
    if not caps:
        return None
    # DATA, not AS: engines reserve far more address space than they ever touch.
    resource.setrlimit(resource.RLIMIT_DATA, (min(caps), min(caps)))
    return min(caps)


def missing_blobs(manifest: Manifest, folder: Path) -> dict[str, int]:
    """Payload blobs that are absent, by digest with their size. A damaged one counts as absent and is removed."""
    from runtime.contract.errors import DigestError
    from runtime.update.verify import check_file

    missing: dict[str, int] = {}
    for entry in manifest.files:
        path = folder / entry.sha256
        try:
            check_file(path, entry.sha256, entry.size_bytes)
        except DigestError:
            path.unlink(missing_ok=True)
            missing[entry.sha256] = entry.size_bytes
    return missing


def bytes_to_come(missing: dict[str, int], folder: Path) -> int:
    """Bytes of these blobs that are not on the disk yet. What an earlier slice brought takes its room already."""
    from runtime.update.slots import PART_SUFFIX

    parts = {sha256: folder / (sha256 + PART_SUFFIX) for sha256 in missing}
    here = {sha256: part.stat().st_size for sha256, part in parts.items() if part.is_file()}
    return sum(max(0, size_bytes - here.get(sha256, 0)) for sha256, size_bytes in missing.items())


def require_space(folder: Path, needed_bytes: int, reserve_bytes: int) -> None:
    """Raise DiskFullError before the first byte comes when the blobs would not fit beside the reserve."""
    free = shutil.disk_usage(folder).free
    if needed_bytes and needed_bytes + reserve_bytes > free:
        raise DiskFullError(f"the artifact needs {needed_bytes} bytes and {reserve_bytes} must stay free; {free} are")


def main(argv: list[str]) -> int:
    kind, act = TASKS[Task(argv[0])]
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=kind)
    threading.Thread(target=_end_with_the_daemon, daemon=True).start()
    os.nice(NICENESS)
    _log_to_the_daemon()
    try:
        reply, status = act(request), EXIT_DONE
    except ContractError as error:
        reply, status = Reply(code=error.code, detail=str(error)), EXIT_REFUSED
    except DaemonError as error:
        reply, status = Reply(code=error.code, detail=str(error)), EXIT_FAILED
    except OSError as error:  # the device's own disk: read-only, failing, or pulled out
        kind_of = SelfTestError if argv[0] == Task.TEST else UpdateError
        reply, status = Reply(code=kind_of.code, detail=f"{argv[0]}: {error}"), EXIT_FAILED
    except MemoryError as error:
        reply, status = Reply(code=MemoryShortError.code, detail=f"the helper ran out of memory: {error}"), EXIT_FAILED
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()
    return status


def _log_to_the_daemon() -> None:
    """What our own modules say goes line by line to stderr; while it fetches, the daemon copies that to its log."""
    ours = logging.getLogger("runtime")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)


def _spell(figures: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def _end_with_the_daemon() -> None:
    # os.read, not sys.stdin: a reader blocked inside the buffered object would abort the interpreter's shutdown.
    while os.read(0, 1):
        pass
    os._exit(EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
