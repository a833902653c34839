"""Where is inference offered, and how much may one client ask of it? The [serving] and [limits] tables of runtime.toml."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

KIB = 1024
Seconds = Annotated[int, Meta(ge=0, le=86_400)]
Bytes = Annotated[int, Meta(ge=1)]
Positive = Annotated[int, Meta(ge=1)]


class ServingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """port: 0 takes a free one, said in the log; unix_socket: "" for none; drain_s: for open requests at a stop.

    inline_us: a model expected to take less runs in the event loop itself, for a thread's hand-over costs 17 us; slower
    ones run in a thread of their own, so that health checks and other models are answered meanwhile. alone_us: one expected
    to take less runs in the loop too while only one caller asks at a time; a health check may then wait so long. Neither
    where inline_us is 0, and the latter not where limits.inference_s is set, which only a thread can keep.
    poll_us: for so long the event loop looks for the next request itself before it sleeps, where there is a second core; to
    wake a sleeping one takes longer than a small model. 0 to sleep at once. grpc_poll_us: the same where gRPC is offered,
    whose own threads hand a call on several times, tens of microseconds apart; nothing where poll_us is 0.
    model_control: whether clients may unload models and load them again. shared_memory: where tensors may be passed in
    shared memory; "local" offers it over the unix socket, and over TCP where `host` is this machine's own: others' clients share
    no memory with it.
    grpc: whether the same is offered over gRPC, on `grpc_port` of the same host; needs the extra `grpc`.

    isolation: which versions run in a process of their own: those on probation, all, or none. engine_memory_bytes: cap on
    such a process; 0 for none. engine_timeout_s: an engine that takes longer over one inference hangs: its process is killed,
    or, where it runs in the daemon's own, the watchdog is told. watchdog_s: a daemon that makes no progress for so long ends
    itself, for whatever supervises it to start it again; 0 for never. systemd's watchdog is served besides (WatchdogSec in the
    unit).

    batch_rows: so many examples of separate requests are joined in one inference at most; 1 joins none. batch_delay_us: none
    waits longer for others. shadow_cpu_permille: of wall time that a shadow may use. cpus: those that serve; () for any.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000
    grpc: bool = False
    grpc_port: Annotated[int, Meta(ge=0, le=65_535)] = 8001
    unix_socket: str = ""
    drain_s: Seconds = 10
    poll_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    grpc_poll_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 300
    inline_us: Annotated[int, Meta(ge=0)] = 200
    alone_us: Annotated[int, Meta(ge=0)] = 5000
    model_control: bool = False
    shared_memory: Literal["local", "always", "never"] = "local"
    isolation: Literal["never", "probation", "always"] = "probation"
    engine_timeout_s: Annotated[int, Meta(ge=1, le=86_400)] = 30
    engine_memory_bytes: Annotated[int, Meta(ge=0)] = 1024 * KIB * KIB
    watchdog_s: Seconds = 0
    batch_rows: Annotated[int, Meta(ge=1, le=65_536)] = 1
    batch_delay_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    shadow_cpu_permille: Annotated[int, Meta(ge=1, le=1000)] = 5
    cpus: tuple[Annotated[int, Meta(ge=0)], ...] = ()

    @property
    def loop_poll_us(self) -> int:
        """For how long the event loop polls, by what it is to notice."""
        return max(self.poll_us, self.grpc_poll_us) if self.grpc and self.poll_us else self.poll_us

    @property
    def offers_shared_memory(self) -> bool:
        return self.shared_memory == "always" or (self.shared_memory == "local" and _is_loopback(self.host))


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """request_s: from a request's first byte to its last; idle_s: between requests; waiting: requests queued per model.

    json_bytes: of the JSON part, whose numbers take up to 16 times their text in memory while they are read; binary tensors
    have no such cost. buffered_bytes: of request bodies not yet answered, on all connections together.
    bytes_elements: strings in one request, each of which costs some 50 bytes beyond its own.
    inference_s: a request whose inference takes longer, its wait for the model included, is answered 503; 0 for no bound.
    """

    body_bytes: Bytes = 64 * KIB * KIB
    json_bytes: Bytes = 8 * KIB * KIB
    buffered_bytes: Bytes = 128 * KIB * KIB
    bytes_elements: Positive = 1_000_000
    header_bytes: Annotated[int, Meta(ge=1 * KIB)] = 16 * KIB
    connections: Positive = 256
    request_s: Annotated[int, Meta(ge=1, le=86_400)] = 30
    idle_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    waiting: Positive = 64
    inference_s: Seconds = 0


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
