"""What does serving cost on top of the bare engine when the input is an image of 602 kB? One run, everything interleaved.

    python -m benchmarks.serving_image [--rounds 20] [--calls 20] [--artifact DIR] [--json FILE]

mobilenet_v3_small at 224 x 224 with random weights in onnxruntime, one thread. Rounds go bare session, HTTP v2 binary over TCP
and over a unix socket, and HTTP with input and output in shared memory over both; each figure is the median over rounds of a
round's own ratio to its own bare block, the engine on one core in all of them and the client on another. The client writes the
image into the region anew before each call, as a camera does; what that alone costs the bare session, whose input otherwise
lies in its cache, and what it costs to ask a process that runs the model and does nothing else, stand beside.
"""

import argparse
import contextlib
import json
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cores import CLIENT, ENGINE, on
from benchmarks.figures import Figure, show
from benchmarks.serving import (
    binary_request,
    exchange,
    make_manifest,
    median_ratio,
    random_inputs,
    run_rounds,
    running_server,
)
from runtime.backends.base import get_backend
from runtime.contract.artifact import MANIFEST_NAME, FileEntry, Manifest, TensorSpec, read_manifest
from runtime.contract.canonical import sha256_hex, write_json

SIDE, CLASSES = 224, 1000
ROUNDS, CALLS = 20, 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, help="artifact directory of a model with one input and one output")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--calls", type=int, default=CALLS, help="per block")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artifact = arguments.artifact or write_image_artifact(Path(folder) / "image")
        return show(run(artifact, Path(folder), arguments.rounds, arguments.calls), arguments.json)


def run(artifact: Path, folder: Path, rounds: int, calls: int) -> list[Figure]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(on(CLIENT))
        manifest = read_manifest((artifact / MANIFEST_NAME).read_bytes()).value
        bare = get_backend(manifest.requires.engine).load(artifact / manifest.model_file, manifest.engine_options)
        stack.callback(bare.close)
        port, unix_socket, _ = stack.enter_context(running_server(artifact, folder / "runtime.sock"))
        inputs = random_inputs(manifest)
        tcp = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.connect(unix_socket)
        request = binary_request(manifest, inputs)
        shared, write = shared_request(stack, tcp, manifest, inputs)
        written = {name: array.copy() for name, array in inputs.items()}

        def bare_written() -> None:
            for name, array in inputs.items():
                written[name][:] = array
            bare.infer(written)

        apart = stack.enter_context(running_apart(artifact))

        def asked_apart() -> None:
            apart.sendall(b"?")
            apart.recv(1)

        ways: dict[str, Callable[[], object]] = {
            "bare": lambda: bare.infer(inputs),
            "written": bare_written,
            "apart": asked_apart,
            "tcp": lambda: exchange(tcp, request),
            "unix": lambda: exchange(unix, request),
            "shared_tcp": lambda: (write(), exchange(tcp, shared)),
            "shared_unix": lambda: (write(), exchange(unix, shared)),
        }
        p50, _ = run_rounds(ways, rounds, calls, here={"bare", "written"})
        return [
            Figure(name="bare session, p50", value=float(np.median(p50["bare"])), unit="us", how="the model alone"),
            Figure(
                name="bare session, input written anew / bare",
                value=median_ratio(p50, "written"),
                unit="x",
                how="no engine has it in its cache",
            ),
            Figure(
                name="bare session in another process / bare",
                value=median_ratio(p50, "apart"),
                unit="x",
                how="a byte there and back, nothing copied: what two processes cost",
            ),
            Figure(name="HTTP v2 binary over TCP / bare", value=median_ratio(p50, "tcp"), unit="x", limit=1.30),
            Figure(name="HTTP v2 binary over unix socket / bare", value=median_ratio(p50, "unix"), unit="x", limit=1.25),
            Figure(name="HTTP over TCP, shared memory / bare", value=median_ratio(p50, "shared_tcp"), unit="x", limit=1.12),
            Figure(
                name="HTTP over unix socket, shared memory / bare", value=median_ratio(p50, "shared_unix"), unit="x", limit=1.12
            ),
        ]


@contextlib.contextmanager
def running_apart(artifact: Path) -> Iterator[socket.socket]:
    """A socket to a process that runs the model on an input of its own for each byte, and answers with one."""
    ours, theirs = socket.socketpair()
    program = (
        "import socket, sys\n"
        "from pathlib import Path\n"
        "from benchmarks.serving import random_inputs\n"
        "from runtime.backends.base import get_backend\n"
        "from runtime.contract.artifact import MANIFEST_NAME, read_manifest\n"
        "artifact, client = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))\n"
        "manifest = read_manifest((artifact / MANIFEST_NAME).read_bytes()).value\n"
        "model = get_backend(manifest.requires.engine).load(artifact / manifest.model_file, manifest.engine_options)\n"
        "inputs = random_inputs(manifest)\n"
        "while client.recv(1):\n"
        "    model.infer(inputs)\n"
        "    client.sendall(b'!')\n"
    )
    with ours:
        with theirs:
            command = [sys.executable, "-c", program, str(artifact), str(theirs.fileno())]
            with on(ENGINE):
                process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        try:
            yield ours
        finally:
            ours.close()
            process.wait()


def shared_request(
    stack: contextlib.ExitStack, client: socket.socket, manifest: Manifest, inputs: dict[str, np.ndarray]
) -> tuple[bytes, Callable[[], None]]:
    """A request whose input and output lie in a registered region, and what writes the input into it."""
    (given,), (result,) = manifest.inputs, manifest.outputs
    array = inputs[given.name]
    out_bytes = CLASSES * 4
    memory = stack.enter_context(
        contextlib.closing(SharedMemory(secrets.token_hex(8), create=True, size=array.nbytes + out_bytes))
    )
    stack.callback(memory.unlink)
    view = np.ndarray(array.shape, array.dtype, memory.buf)
    body = json.dumps({"key": memory.name, "byte_size": array.nbytes + out_bytes}).encode()
    exchange(client, _post("/v2/systemsharedmemory/region/image/register", body))
    place = {"shared_memory_region": "image", "shared_memory_byte_size": array.nbytes}
    answer = {"shared_memory_region": "image", "shared_memory_byte_size": out_bytes, "shared_memory_offset": array.nbytes}
    head: dict[str, Any] = {
        "inputs": [{"name": given.name, "shape": array.shape, "datatype": given.datatype, "parameters": place}],
        "outputs": [{"name": result.name, "parameters": answer}],
    }

    def write() -> None:
        view[:] = array

    stack.callback(lambda: _forget(write))
    return _post(f"/v2/models/{manifest.model}/infer", json.dumps(head).encode()), write


def _forget(write: Callable[[], None]) -> None:
    """Let the view into the region go before it is closed."""
    for cell in write.__closure__ or ():
        if isinstance(cell.cell_contents, np.ndarray):
            cell.cell_contents = np.empty(0)


def _post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def write_image_artifact(directory: Path) -> Path:
    import torch
    import torchvision

    directory.mkdir()
    network = torchvision.models.mobilenet_v3_small().eval()
    program = torch.onnx.export(
        network, (torch.zeros(2, 3, SIDE, SIDE),), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["input"], output_names=["scores"], external_data=False, verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(str(directory / "model.onnx"), external_data=False)
    raw = (directory / "model.onnx").read_bytes()
    inputs = (TensorSpec(name="input", datatype="FP32", shape=(-1, 3, SIDE, SIDE), layout="NCHW"),)
    outputs = (TensorSpec(name="scores", datatype="FP32", shape=(-1, CLASSES)),)
    files = (FileEntry(name="model.onnx", sha256=sha256_hex(raw), size_bytes=len(raw)),)
    (directory / MANIFEST_NAME).write_bytes(write_json(make_manifest("image", "onnxruntime", inputs, outputs, files)))
    return directory


if __name__ == "__main__":
    sys.exit(main())
