"""What does gRPC cost on top of the bare engine, and what beside KServe? One run, everything interleaved.

    python -m benchmarks.grpc [--kserve PYTHON] [--rounds 20] [--calls 200] [--poll-us 300] [--json FILE]

The tiny model of benchmarks.serving (about 16 us in onnxruntime), one client in turn on each way: the bare session, HTTP v2
binary over TCP, gRPC by the unmodified tritonclient, gRPC by a client that sends ready bytes (what of the figure is the
server's and the transport's). With --kserve, the interpreter of an environment that has `kserve` and `onnxruntime`
installed, KServe serves the same file with the same threads, and the same clients ask it.
"""

import argparse
import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, show
from benchmarks.serving import binary_request, exchange, random_inputs, run_rounds, write_tiny_artifact
from runtime.backends.base import get_backend
from runtime.contract.artifact import Manifest, read_manifest
from runtime.serving.limits import ServingSettings

INFER = "/inference.GRPCInferenceService/ModelInfer"
PEER_START_S = 90.0
KSERVE = """
import sys
import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer


class Tiny(Model):
    def __init__(self, path):
        super().__init__("tiny")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.ready = True

    def load(self):
        return self.ready

    async def predict(self, payload, headers=None, response_headers=None):
        scores = self.session.run(None, {"input": payload.inputs[0].as_numpy()})[0]
        output = InferOutput("scores", list(scores.shape), "FP32")
        output.set_data_from_numpy(scores, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


path, http, grpc = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.argv = sys.argv[:1]
ModelServer(http_port=http, grpc_port=grpc, workers=1).start([Tiny(path)])
"""
"""A KServe model as its documentation has it, in its quickest form: asynchronous, raw tensors in and out."""


def main() -> int:
    arguments = parse_arguments()
    if arguments.serve:
        from runtime.serving.polling import run as run_polling

        run_polling(serve_until_terminated(Path(arguments.serve)), arguments.poll_us)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return show(run(Path(folder), arguments.rounds, arguments.calls, arguments.kserve, arguments.poll_us), arguments.json)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kserve", help="interpreter of an environment with kserve and onnxruntime, to measure beside")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=200, help="per block")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    polls_us = ServingSettings(grpc=True).loop_poll_us
    parser.add_argument("--poll-us", type=int, default=polls_us, help="of the loop that serves (default: %(default)s)")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(folder: Path, rounds: int, calls: int, kserve: str | None, poll_us: int) -> list[Figure]:
    artifact = write_tiny_artifact(folder / "tiny")
    manifest = read_manifest((artifact / "manifest.json").read_bytes()).value
    inputs = random_inputs(manifest)
    with contextlib.ExitStack() as stack:
        bare = get_backend(manifest.requires.engine).load(artifact / manifest.model_file, manifest.engine_options)
        stack.callback(bare.close)
        http_port, grpc_port = stack.enter_context(running_server(artifact, poll_us))
        http = stack.enter_context(socket.create_connection(("127.0.0.1", http_port)))
        http.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = binary_request(manifest, inputs)
        ways: dict[str, Callable[[], object]] = {
            "bare": lambda: bare.infer(inputs),
            "http": lambda: exchange(http, request),
            "grpc": stack.enter_context(triton_call(grpc_port, manifest, inputs)),
            "grpc raw": stack.enter_context(raw_call(grpc_port, manifest, inputs)),
        }
        if kserve:
            peer_port = stack.enter_context(running_kserve(kserve, artifact / manifest.model_file, folder))
            ways["kserve"] = stack.enter_context(triton_call(peer_port, manifest, inputs))
            ways["kserve raw"] = stack.enter_context(raw_call(peer_port, manifest, inputs))
        p50, _ = run_rounds(ways, rounds, calls)
    middle = {way: float(np.median(taken)) for way, taken in p50.items()}
    figures = [
        Figure(name="bare session, p50", value=middle["bare"], unit="us", how="the model alone"),
        Figure(name="HTTP v2 binary over TCP, p50", value=middle["http"], unit="us"),
        Figure(name="gRPC, tritonclient, p50", value=middle["grpc"], unit="us", how="its client's own cost included"),
        Figure(name="gRPC, ready bytes, p50", value=middle["grpc raw"], unit="us"),
    ]
    if kserve:
        ratio = float(np.median(p50["grpc"] / p50["kserve"]))
        raw_ratio = float(np.median(p50["grpc raw"] / p50["kserve raw"]))
        figures += [
            Figure(name="KServe gRPC, tritonclient, p50", value=middle["kserve"], unit="us"),
            Figure(name="KServe gRPC, ready bytes, p50", value=middle["kserve raw"], unit="us"),
            Figure(name="gRPC / KServe, tritonclient", value=ratio, unit="x", limit=0.7, how="median of the rounds' ratios"),
            Figure(name="gRPC / KServe, ready bytes", value=raw_ratio, unit="x", limit=0.7, how="median of the rounds' ratios"),
        ]
    return figures


# clients


@contextlib.contextmanager
def triton_call(port: int, manifest: Manifest, inputs: dict[str, np.ndarray]) -> Iterator[Callable[[], object]]:
    import tritonclient.grpc as triton

    tensors = []
    for spec in manifest.inputs:
        tensors.append(triton.InferInput(spec.name, inputs[spec.name].shape, spec.datatype))
        tensors[-1].set_data_from_numpy(inputs[spec.name])
    name = manifest.outputs[0].name
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        yield lambda: client.infer(manifest.model, tensors).as_numpy(name)


@contextlib.contextmanager
def raw_call(port: int, manifest: Manifest, inputs: dict[str, np.ndarray]) -> Iterator[Callable[[], object]]:
    import grpc

    from runtime.serving.grpc.schema import MESSAGES

    request = MESSAGES.ModelInferRequest(model_name=manifest.model)
    for spec in manifest.inputs:
        request.inputs.add(name=spec.name, datatype=spec.datatype, shape=inputs[spec.name].shape)
        request.raw_input_contents.append(inputs[spec.name].tobytes())
    body = request.SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(INFER)
        yield lambda: call(body)


# servers, each in a process of its own


@contextlib.contextmanager
def running_server(artifact: Path, poll_us: int) -> Iterator[tuple[int, int]]:
    """Ports of HTTP and gRPC."""
    command = [sys.executable, "-m", "benchmarks.grpc", "--serve", str(artifact), "--poll-us", str(poll_us)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        http, grpc = process.stdout.readline().split()
        yield int(http), int(grpc)
    finally:
        process.terminate()
        process.communicate()


async def serve_until_terminated(artifact: Path) -> None:
    from runtime.serving.limits import LimitSettings
    from runtime.serving.models.repository import Repository
    from runtime.serving.server import serve

    repository = Repository()
    repository.switch(repository.open(artifact))
    server = await serve(repository, ServingSettings(port=0, grpc=True, grpc_port=0), LimitSettings())
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    assert server.grpc is not None
    print(server.addresses[0][1], server.grpc.address[1], flush=True)
    await stop.wait()
    await server.drain()


@contextlib.contextmanager
def running_kserve(python: str, model: Path, folder: Path) -> Iterator[int]:
    """KServe's gRPC port, once it answers."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    script = folder / "kserve_model.py"
    script.write_text(KSERVE)
    with (folder / "kserve.log").open("wb") as log:
        process = subprocess.Popen([python, script, model, *map(str, ports)], stdout=log, stderr=log, cwd=folder)
    try:
        until = time.monotonic() + PEER_START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", ports[1]), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"KServe did not start: {(folder / 'kserve.log').read_text()[-2000:]}") from None
                time.sleep(0.1)
        yield ports[1]
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
