"""What does serving cost on top of the bare engine? One run, everything interleaved, as a table and as JSON.

    python -m benchmarks.serving [--artifact DIR] [--rounds 30] [--calls 300] [--json FILE]

Rounds go bare session and in-process runtime with the monitor on; then bare session, HTTP v2 binary over TCP and over a unix
socket, by a client that sleeps until it is answered and by one that polls, and JSON by both. Each figure is the median over
rounds of a round's own difference or ratio to its own bare block, so that a slow moment of the machine falls on both sides;
the engine runs on one core in all of them, and who asks another process on another.
Without --artifact the model is a depthwise-separable CNN on 1x32x32, about 16 us in onnxruntime.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cores import CLIENT, ENGINE, on
from benchmarks.figures import Figure, show
from runtime.api import Runtime
from runtime.backends.base import parse_options
from runtime.backends.datatypes import NUMPY_TYPES
from runtime.backends.onnxruntime import OnnxRuntimeOptions, session_options
from runtime.contract.artifact import (
    MANIFEST_NAME,
    EngineRange,
    FileEntry,
    Lineage,
    Manifest,
    Processing,
    Requirements,
    Step,
    TensorSpec,
    read_manifest,
)
from runtime.contract.canonical import Received, write_json
from runtime.contract.telemetry import CELLS, EdgeSet, Reference, StreamCounts, StreamReference
from runtime.monitor.cells import make_edges
from runtime.monitor.monitor import Monitor, MonitorLimits
from runtime.monitor.streams import stream_plan, stream_rows

ZERO = "0" * 64
MONITOR_FEATURES = 16
ROUNDS, CALLS = 30, 300
SIDE, WIDE_SIDE = 32, 256
AWAKE = "no core has to wake up"


def main() -> int:
    arguments = parse_arguments()
    if arguments.serve:
        from runtime.serving.limits import ServingSettings
        from runtime.serving.polling import run as run_polling

        run_polling(serve_until_terminated(Path(arguments.serve), arguments.unix_socket), ServingSettings().poll_us)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(arguments.artifact) if arguments.artifact else write_tiny_artifact(Path(folder) / "tiny")
        figures = run(artifact, Path(folder), arguments.rounds, arguments.calls)
        if not arguments.artifact:
            figures += wide_in_process(Path(folder), arguments.rounds, arguments.calls // 10)
        return show(figures, arguments.json)


def measure() -> list[Figure]:
    """The figures of the built-in tiny model, as `python -m benchmarks` shows them."""
    with tempfile.TemporaryDirectory() as folder:
        figures = run(write_tiny_artifact(Path(folder) / "tiny"), Path(folder), ROUNDS, CALLS)
        return [*figures, *wide_in_process(Path(folder), ROUNDS, CALLS // 10)]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", help="artifact directory to serve instead of the built-in tiny model")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--calls", type=int, default=CALLS, help="per block")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--unix-socket", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(artifact: Path, folder: Path, rounds: int, calls: int) -> list[Figure]:
    with on(CLIENT):
        return [
            *in_process(artifact, rounds, calls, p50_limit=1.10, mean_limit=1.20),
            *over_sockets(artifact, folder, rounds, calls),
            Figure(
                name="TCP round trip alone, p50", value=bare_round_trip_us(rounds * calls // 4), unit="us", how="asyncio echo"
            ),
            Figure(name="monitor, 16 features, per inference", value=monitor_us(), unit="us", limit=2),
        ]


def wide_in_process(folder: Path, rounds: int, calls: int) -> Iterator[Figure]:
    """What the runtime adds to a model of about half a millisecond: the tiny one on 64 times the pixels."""
    artifact = write_tiny_artifact(folder / "wide", side=WIDE_SIDE)
    yield from in_process(artifact, rounds, calls, p50_limit=1.01, which="wide model, ")


def in_process(
    artifact: Path, rounds: int, calls: int, *, p50_limit: float, mean_limit: float | None = None, which: str = ""
) -> Iterator[Figure]:
    """Beside the bare session alone: between slower ways the monitor would save up CPU time, and spend it here."""
    with Runtime() as runtime:
        manifest = runtime.open(artifact)
        bare, inputs = engine_alone(artifact, manifest), random_inputs(manifest)
        ways: dict[str, Callable[[], object]] = {"bare": lambda: bare(inputs), "ours": lambda: runtime.infer(inputs)}
        p50, mean = run_rounds(ways, rounds, calls, here=ways)
    yield Figure(name=f"{which}bare session, p50", value=float(np.median(p50["bare"])), unit="us", how="the model alone")
    monitored = f"{which}in-process, monitor on"
    yield Figure(name=f"{monitored}, p50 / bare", value=median_ratio(p50, "ours"), unit="x", limit=p50_limit)
    yield Figure(name=f"{monitored}, mean / bare", value=median_ratio(mean, "ours"), unit="x", limit=mean_limit)


def over_sockets(artifact: Path, folder: Path, rounds: int, calls: int) -> Iterator[Figure]:
    """What a process of its own adds, and what it takes."""
    manifest = read_manifest((artifact / MANIFEST_NAME).read_bytes()).value
    inputs, bare = random_inputs(manifest), engine_alone(artifact, manifest)
    request, in_json = binary_request(manifest, inputs), json_request(manifest, inputs)
    with contextlib.ExitStack() as stack:
        port, unix_socket, first_s = stack.enter_context(running_server(artifact, folder / "runtime.sock"))
        tcp = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.connect(unix_socket)
        ways: dict[str, Callable[[], object]] = {
            "bare": lambda: bare(inputs),
            "tcp": lambda: exchange(tcp, request),
            "unix": lambda: exchange(unix, request),
            "json": lambda: exchange(tcp, in_json),
            "tcp_polled": lambda: exchange_polling(tcp, request),
            "unix_polled": lambda: exchange_polling(unix, request),
            "json_polled": lambda: exchange_polling(tcp, in_json),
        }
        p50, _ = run_rounds(ways, rounds, calls, here={"bare"})
        for suffix, told, how in (("", "", ""), ("_polled", ", client polls", AWAKE)):
            for way, name, limit in (("tcp", "TCP", 30), ("unix", "unix socket", 25)):
                over_bare = float(np.median(p50[way + suffix] - p50["bare"]))
                yield Figure(
                    name=f"HTTP v2 binary over {name}, p50 - bare{told}", value=over_bare, unit="us", limit=limit, how=how
                )
            in_json_ratio = median_ratio(p50, f"json{suffix}")
            yield Figure(name=f"HTTP v2 JSON over TCP, p50 / bare{told}", value=in_json_ratio, unit="x", limit=5, how=how)
        eight = requests_per_s(port, request)
        yield Figure(name="HTTP v2 binary, 8 connections", value=eight, unit="/s", limit=15_000, at_most=False)
        yield Figure(name="serving process, resident memory", value=resident_mb(port), unit="MB", how="no MQTT agent")
        yield Figure(name="serving process, CPU to first inference", value=first_s, unit="s", limit=0.5)


def engine_alone(artifact: Path, manifest: Manifest) -> Callable[[dict[str, np.ndarray]], object]:
    """The engine's own session, opened with the options the backend opens it with and called as its documentation says."""
    import onnxruntime

    options = session_options(onnxruntime, parse_options(OnnxRuntimeOptions, manifest.engine_options, "onnxruntime"))
    session = onnxruntime.InferenceSession(str(artifact / manifest.model_file), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def requests_per_s(port: int, request: bytes, connections: int = 8, seconds: float = 3.0) -> float:
    """How many requests are answered when so many connections ask again as soon as they are answered."""
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for _ in range(connections):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            size = len(exchange(client, request))
            selector.register(client, selectors.EVENT_READ)
            client.sendall(request)
        answered, missing = 0, dict.fromkeys(selector.get_map(), size)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for key, _ in selector.select():
                client = key.fileobj  # type: ignore[assignment]  # registered above
                missing[key.fd] -= len(client.recv(65536))
                if not missing[key.fd]:
                    missing[key.fd] = size
                    answered += 1
                    client.sendall(request)
        return answered / seconds


def run_rounds(
    ways: dict[str, Callable[[], object]], rounds: int, calls: int, here: Container[str] = ()
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Microseconds by way: medians and means, one per round; the first round warms up and is left out.

    here: ways whose engine runs in this very thread, and so goes where another process's does.
    """
    p50: dict[str, list[float]] = {name: [] for name in ways}
    mean: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, call in ways.items():
            taken = np.empty(calls)
            with on(ENGINE) if name in here else contextlib.nullcontext():
                for index in range(calls):
                    started = time.perf_counter_ns()
                    call()
                    taken[index] = time.perf_counter_ns() - started
            p50[name].append(float(np.median(taken)) / 1000)
            mean[name].append(float(taken.mean()) / 1000)
    return {name: np.array(values[1:]) for name, values in p50.items()}, {
        name: np.array(values[1:]) for name, values in mean.items()
    }


def median_ratio(by_way: dict[str, np.ndarray], way: str) -> float:
    return float(np.median(by_way[way] / by_way["bare"]))


def bare_round_trip_us(calls: int) -> float:
    """The same loop and sockets with nothing behind them: what of the HTTP figure no server in Python can avoid."""
    with running_echo() as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken = []
        for _ in range(calls):
            started = time.perf_counter_ns()
            client.sendall(b"x" * 256)
            client.recv(65536)
            taken.append(time.perf_counter_ns() - started)
    return round(float(np.median(taken)) / 1000, 2)


def monitor_us() -> float:
    """Mean microseconds of watching one inference with 16 features, counting included, the best of 5 passes of 10,000."""
    inputs = (TensorSpec(name="x", datatype="FP32", shape=(-1, MONITOR_FEATURES)),)
    outputs = (TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),)
    generator = np.random.default_rng(0)
    sample = {"x": generator.normal(size=(500, MONITOR_FEATURES)).astype(np.float32), "y": np.zeros((500, 1), np.float32)}
    manifest = make_manifest("monitor", "reference", inputs, outputs, (), "regression")
    edge_set = make_edge_set(manifest, sample)
    limits = MonitorLimits(rows_per_window=1_000_000, cpu_permille=1000, burst_ms=60_000)
    x, y = {"x": sample["x"][:1]}, {"y": sample["y"][:1]}
    best = float("inf")
    for _ in range(5):
        monitor = Monitor(manifest, edge_set, limits)
        started = time.perf_counter()
        for _ in range(10_000):
            monitor.observe(x, y, 1, 0, 16_000)
        monitor.take()
        best = min(best, time.perf_counter() - started)
    return round(best / 10_000 * 1e6, 2)


# the server, in a process of its own


@contextlib.contextmanager
def running_server(artifact: Path, unix_socket: Path) -> Iterator[tuple[int, str, float]]:
    """Port, unix socket path, and CPU seconds the server had used when it had loaded the model and run it once."""
    command = [sys.executable, "-m", "benchmarks.serving", "--serve", str(artifact), "--unix-socket", str(unix_socket)]
    with on(ENGINE):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port, first_s = process.stdout.readline().split()
        yield int(port), str(unix_socket), float(first_s)
    finally:
        process.terminate()
        process.communicate()


async def serve_until_terminated(artifact: Path, unix_socket: str) -> None:
    # Imported here so that the client side does not share what the server's memory is measured with.
    from runtime.serving.limits import LimitSettings, ServingSettings
    from runtime.serving.models.repository import Repository
    from runtime.serving.server import serve

    repository = Repository()
    repository.switch(repository.open(artifact))
    server = await serve(repository, ServingSettings(port=0, unix_socket=unix_socket), LimitSettings())
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(server.addresses[0][1], round(time.process_time(), 3), flush=True)
    await stop.wait()
    await server.drain()


@contextlib.contextmanager
def running_echo() -> Iterator[int]:
    program = (
        "import asyncio\n"
        "class Echo(asyncio.Protocol):\n"
        "    def connection_made(self, transport): self.transport = transport\n"
        "    def data_received(self, data): self.transport.write(data)\n"
        "async def main():\n"
        "    server = await asyncio.get_running_loop().create_server(Echo, '127.0.0.1', 0)\n"
        "    print(server.sockets[0].getsockname()[1], flush=True)\n"
        "    await server.serve_forever()\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-c", program]
    with on(ENGINE):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate()


def resident_mb(port: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    line = next(line for line in text.splitlines() if line.startswith("process_resident_memory_bytes "))
    return round(int(line.split()[1]) / 1e6, 1)


def exchange(client: socket.socket, request: bytes) -> bytes:
    """Send a request and read its whole response."""
    client.sendall(request)
    received = client.recv(65536)
    end = received.index(b"\r\n\r\n") + 4
    missing = end + int(received.split(b"Content-Length: ", 2)[-1].split(b"\r\n", 1)[0]) - len(received)
    while missing > 0:
        part = client.recv(65536)
        missing -= len(part)
        received += part
    if not received.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(received[:500].decode(errors="replace"))
    return received


def json_request(manifest: Manifest, inputs: dict[str, np.ndarray]) -> bytes:
    """As clients without binary tensors send it: every number at full length."""
    tensors = [
        {
            "name": spec.name,
            "shape": inputs[spec.name].shape,
            "datatype": spec.datatype,
            "data": inputs[spec.name].ravel().tolist(),
        }
        for spec in manifest.inputs
    ]
    body = json.dumps({"inputs": tensors}).encode()
    head = f"POST /v2/models/{manifest.model}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def exchange_polling(client: socket.socket, request: bytes) -> bytes:
    """As `exchange`, by a client that does not sleep while it waits: its own wake-up is no part of what serving costs."""
    client.sendall(request)
    while True:
        with contextlib.suppress(BlockingIOError):
            received = client.recv(65536, socket.MSG_DONTWAIT)
            break
    if not received.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(received[:500].decode(errors="replace"))
    return received


def binary_request(manifest: Manifest, inputs: dict[str, np.ndarray]) -> bytes:
    tensors = [
        {
            "name": spec.name,
            "shape": inputs[spec.name].shape,
            "datatype": spec.datatype,
            "parameters": {"binary_data_size": inputs[spec.name].nbytes},
        }
        for spec in manifest.inputs
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(inputs[spec.name].tobytes() for spec in manifest.inputs)
    return (
        f"POST /v2/models/{manifest.model}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {len(head)}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


# the model


def random_inputs(manifest: Manifest) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {spec.name: [1 if size == -1 else size for size in spec.shape] for spec in manifest.inputs}
    return {spec.name: generator.random(shapes[spec.name]).astype(NUMPY_TYPES[spec.datatype]) for spec in manifest.inputs}


def make_manifest(  # noqa: PLR0917 - one call site each, in the order of the manifest
    model: str,
    engine: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    files: tuple[FileEntry, ...],
    output_kind: str = "classification",
) -> Manifest:
    return Manifest(
        model=model,
        version="1.0.0",
        requires=Requirements(profile="any-cpu", arch="any", engine=engine, engine_range=EngineRange(at_least="1", below="999")),
        variant="float",
        inputs=inputs,
        outputs=outputs,
        processing=Processing(post=(Step(name="softmax"),)),
        output_kind=output_kind,  # type: ignore[arg-type]
        files=files,
        model_file=files[0].name if files else "model",
        lineage=Lineage(recipe=ZERO, data=ZERO, code=ZERO, lock=ZERO),
    )


def make_edge_set(manifest: Manifest, sample: dict[str, np.ndarray]) -> Received[EdgeSet]:
    import msgspec

    plan = stream_plan(manifest.inputs, manifest.outputs, manifest.output_kind)
    rows = stream_rows(plan, (*manifest.inputs, *manifest.outputs), sample)
    streams = tuple(
        StreamReference(name=one.name, kind=one.kind, tensor=one.tensor, index=one.index, edges=make_edges(column).tobytes())  # type: ignore[arg-type]
        for one, column in zip(plan, rows.T, strict=True)
    )
    value = EdgeSet(streams=streams)
    return Received(msgspec.msgpack.encode(value), value)


def write_tiny_artifact(directory: Path, side: int = SIDE) -> Path:
    """Two depthwise-separable blocks behind a strided convolution, 10 classes; random weights, for latency only."""
    import msgspec

    directory.mkdir()
    write_tiny_onnx(directory / "model.onnx", side)
    inputs = (TensorSpec(name="input", datatype="FP32", shape=(-1, 1, side, side), layout="NCHW"),)
    outputs = (TensorSpec(name="scores", datatype="FP32", shape=(-1, 10)),)
    sample = {"input": np.random.default_rng(1).random((300, 1, side, side)).astype(np.float32)}
    edge_set = make_edge_set(make_manifest("tiny", "onnxruntime", inputs, outputs, ()), sample)
    streams = len(edge_set.value.streams)
    empty = StreamCounts(cells=(0,) * CELLS)
    reference = Reference(edge_set=edge_set.raw, counts=(empty,) * streams, null=((),) * streams, null_rows=0)
    (directory / "reference.bin").write_bytes(msgspec.msgpack.encode(reference))
    files = tuple(
        FileEntry(name=name, sha256=hashlib.sha256(raw := (directory / name).read_bytes()).hexdigest(), size_bytes=len(raw))
        for name in ("model.onnx", "reference.bin")
    )
    (directory / "manifest.json").write_bytes(write_json(make_manifest("tiny", "onnxruntime", inputs, outputs, files)))
    return directory


def write_tiny_onnx(path: Path, side: int = SIDE) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    generator = np.random.default_rng(2)
    nodes, weights = [], []
    last = "input"

    def convolve(index: int, shape: tuple[int, ...], **attributes: Any) -> None:
        nonlocal last
        weights.append(numpy_helper.from_array((generator.normal(size=shape) / 10).astype(np.float32), f"w{index}"))
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], **attributes))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"

    convolve(0, (32, 1, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    convolve(1, (32, 1, 3, 3), pads=[1, 1, 1, 1], group=32)
    convolve(2, (48, 32, 1, 1))
    convolve(3, (48, 1, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], group=48)
    convolve(4, (32, 48, 1, 1))
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    weights.append(numpy_helper.from_array(generator.normal(size=(32, 10)).astype(np.float32), "wd"))
    nodes.append(helper.make_node("MatMul", ["flat", "wd"], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, side, side])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


if __name__ == "__main__":
    sys.exit(main())
