"""Can any bytes at all make the endpoint crash, hang, answer nonsense or keep memory? A million mutated requests say.

    python -m benchmarks.fuzz_http [--runs 1000000] [--json FILE]

atheris (libFuzzer) mutates requests towards code it has not seen yet in the connection, the routes and the codec; every
input goes through a real connection object in front of a real model, without a socket. Then as many inputs are spoilt at
random, with nothing remembered between them, so that memory that grows is the endpoint's own. A crash, an answer that is
no HTTP, a 5xx other than 503, or an input that takes over a second ends the run with the input written to a file.

Needs Linux and `pip install atheris`, which is in the extra [dev].
"""

import argparse
import asyncio
import gc
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, show
from runtime.serving.limits import LimitSettings
from runtime.serving.metrics import resident_bytes

RUNS = 1_000_000
MOST_BYTES = 4096
SLOWEST_S = 1.0
MEMORY_MB = 2.0
_CHECKOUT = Path(__file__).parents[1]
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")
_INFER = b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}'
_BINARY = b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}]}'


def seeds() -> list[bytes]:
    """One request of each kind, for the mutations to begin with."""
    posts = [
        (b"/v2/models/tiny/infer", _INFER, b""),
        (b"/v2/models/tiny/versions/1.0.0/infer", _BINARY + bytes(16), b"Inference-Header-Content-Length: %d\r\n" % len(_BINARY)),
        (b"/v2/models/tiny/infer", b"5\r\nhello\r\n0\r\n\r\n", b"Transfer-Encoding: chunked\r\n"),
        (b"/v2/repository/index", b"{}", b""),
        (b"/v2/repository/models/tiny/load", b"{}", b""),
        (b"/v2/systemsharedmemory/region/r/register", b'{"key":"/k","offset":0,"byte_size":16}', b""),
    ]
    gets = [b"/v2", b"/v2/health/ready", b"/v2/models/tiny", b"/v2/models/tiny/config", b"/v2/models/tiny/stats", b"/metrics"]
    found = [b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in gets]
    for path, body, header in posts:
        length = b"" if b"chunked" in header else b"Content-Length: %d\r\n" % len(body)
        found.append(b"POST %b HTTP/1.1\r\n%b%b\r\n%b" % (path, header, length, body))
    return [*found, found[0] + found[-1]]


class Transport(asyncio.Transport):
    """What a connection writes, kept for the judge."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self._is_closing = False

    def write(self, data: object) -> None:
        self.written += data  # type: ignore[arg-type]  # bytes of any kind

    def close(self) -> None:
        self._is_closing = True

    abort = close

    def is_closing(self) -> bool:
        return self._is_closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """The refusal is out."""

    def pause_reading(self) -> None:
        """Everything is here already."""

    def resume_reading(self) -> None:
        """Everything is here already."""


class Target:
    """The endpoint, fed without sockets."""

    def __init__(self, folder: Path) -> None:
        from runtime.serving.control import ModelControl, Stored
        from runtime.serving.http.app import App
        from runtime.serving.inference import Inference
        from runtime.serving.models.repository import Repository
        from runtime.serving.regions import Regions
        from tests.support.artifacts import write_artifact

        write_artifact(folder / "tiny")
        self._repository = Repository()
        self._repository.switch(self._repository.open(folder / "tiny"))
        limits = LimitSettings(body_bytes=64 * 1024, json_bytes=32 * 1024, header_bytes=2048)
        inference = Inference(self._repository, inline_ns=10**12, waiting=limits.waiting)
        control = ModelControl(Stored(), is_allowed=True)
        self._app = App(self._repository, inference, limits, control=control, regions=Regions(is_offered=True))
        self.loop = asyncio.new_event_loop()
        self.slowest_s = 0.0

    def close(self) -> None:
        self._app.close()
        self._repository.close()
        self.loop.close()

    def feed(self, data: bytes) -> None:
        """One client's bytes, in two pieces, and its hanging up. Raises AssertionError for an answer that must not be."""
        began = time.perf_counter()
        written = self.loop.run_until_complete(self._feed(data))
        self.slowest_s = max(self.slowest_s, time.perf_counter() - began)
        check_answers(bytes(written))

    async def _feed(self, data: bytes) -> bytearray:
        hub = self._app.hub
        connection, transport = hub.connection(shares_memory=True), Transport()
        connection.connection_made(transport)
        middle = len(data) // 2
        for piece in (data[:middle], data[middle:]):
            if piece and not transport.is_closing():
                hub.buffer[: len(piece)] = piece
                connection.buffer_updated(len(piece))
        connection.eof_received()
        while connection._is_busy() and not transport.is_closing():
            await asyncio.sleep(0.0005)
        connection.connection_lost(None)
        assert not hub.connections, "a connection is kept"
        assert hub.buffered_bytes == 0, f"{hub.buffered_bytes} bytes are still counted"
        return transport.written


def check_answers(written: bytes) -> None:
    """Whole responses one after the other, none of them a bug's. HEAD and 100 Continue have no body."""
    at = 0
    while at < len(written):
        match = _HEAD.match(written, at)
        assert match is not None, f"no HTTP: {written[at : at + 80]!r}"
        status = int(match[1])
        assert status < 500 or status == 503, f"HTTP {status}: {written[at : at + 300]!r}"
        length = _LENGTH.search(match[0])
        assert length is not None or status == 100, f"no length: {match[0]!r}"
        at = match.end() + (int(length[1]) if length else 0)
    assert at == len(written), f"an answer is {at - len(written)} bytes short"


def spoilt(rng: random.Random, examples: list[bytes]) -> bytes:
    """A request with some bytes changed, cut out, doubled or joined to another's."""
    data = bytearray(rng.choice(examples))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randint(0, 20))
        match rng.randrange(5):
            case 0:
                data[at:end] = rng.randbytes(rng.randint(0, 20))
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * rng.randint(1, 4)
            case 3:
                data += rng.choice(examples)
            case 4:
                data[at:end] = rng.choice([b"-1", b"99999999999999999999", b"\0", b"[", b'"', b"\r\n", b"1e999", b"null"])
    return bytes(data[:MOST_BYTES])


def spoil(runs: int) -> dict[str, float]:
    """Random inputs; memory at a fifth of the way and at the end, once everything collectable is collected."""
    with tempfile.TemporaryDirectory() as folder:
        target, rng, examples = Target(Path(folder)), random.Random(1), seeds()
        early = 0
        for number in range(runs):
            if number == runs // 5:
                gc.collect()
                early = resident_bytes()
            data = spoilt(rng, examples)
            try:
                target.feed(data)
            except AssertionError:
                Path("crash-spoilt").write_bytes(data)
                raise
        gc.collect()
        grown = resident_bytes() - early
        target.close()
        return {"grown_mb": grown / 1e6, "slowest_s": target.slowest_s}


def guide(runs: int) -> None:
    """libFuzzer's own loop; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["runtime.serving"]):
        import runtime.serving.server  # noqa: F401 - instrumented here, whoever imports it later
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder))
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds()):
            (corpus / str(number)).write_bytes(seed)
        options = [
            f"-runs={runs}",
            f"-max_len={MOST_BYTES}",
            "-timeout=10",
            "-seed=1",
            "-print_final_stats=1",
            "-rss_limit_mb=1024",
        ]
        atheris.Setup([sys.argv[0], *options, str(corpus)], target.feed)
        atheris.Fuzz()


def measure(runs: int = RUNS) -> list[Figure]:
    command = [sys.executable, "-m", "benchmarks.fuzz_http", "--runs", str(runs)]
    guided = subprocess.run([*command, "--guide"], cwd=_CHECKOUT, capture_output=True, text=True, check=False)
    sys.stderr.write(guided.stderr[-2000:])
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", guided.stderr))
    spoiling = subprocess.run([*command, "--spoil"], cwd=_CHECKOUT, capture_output=True, text=True, check=False)
    sys.stderr.write(spoiling.stderr[-2000:])
    spoilt_figures = json.loads(spoiling.stdout) if spoiling.returncode == 0 else {"grown_mb": -1.0, "slowest_s": -1.0}
    covered = re.findall(r"cov: (\d+)", guided.stderr)
    return [
        Figure(name="guided inputs", value=float(stats.get("number_of_executed_units", 0)), unit="", limit=runs, at_most=False),
        Figure(name="guided: exit status", value=guided.returncode, unit="", limit=0, how="crash, hang or wrong answer: not 0"),
        Figure(name="guided: code edges covered", value=float(covered[-1]) if covered else 0.0, unit=""),
        Figure(name="random inputs: exit status", value=spoiling.returncode, unit="", limit=0),
        Figure(name="random inputs: memory grown", value=spoilt_figures["grown_mb"], unit="MB", limit=MEMORY_MB),
        Figure(name="random inputs: slowest", value=spoilt_figures["slowest_s"], unit="s", limit=SLOWEST_S),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz_http", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="inputs of each kind (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--guide", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--spoil", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.guide:
        guide(arguments.runs)
    if arguments.spoil:
        print(json.dumps(spoil(arguments.runs)))
        return 0
    return show(measure(arguments.runs), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
