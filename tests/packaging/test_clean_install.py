"""Must show: a clean Debian that installs the package without a network serves a side-loaded model, and forgets it on purge."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.arm64.root import CannotRunError
from runtime.contract.artifact import EngineRange, FileEntry, Requirements, read_manifest
from runtime.contract.canonical import sha256_hex, write_json
from runtime.packaging import build_deb
from tests.packaging.board import Board
from tests.support.artifacts import CLASSES, FEATURES, scores, weights, write_artifact
from tests.support.store import ReleaseStore

pytestmark = pytest.mark.slow

ROWS = np.random.default_rng(5).normal(size=(2, FEATURES)).astype(np.float32)
ASK = """
import json, sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:8000/v2/models/tiny/infer", sys.argv[1].encode())
print(json.dumps(json.load(urllib.request.urlopen(request, timeout=10))["outputs"][0]["data"]))
"""
SHARE = """
import sys, urllib.request
open("/dev/shm/frames", "wb").write(bytes(4096))
body = b'{"key": "/frames", "offset": 0, "byte_size": 4096}'
urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8000/v2/systemsharedmemory/region/frames/register", body))
print("registered")
"""
# A masked unit cannot be started by what still names it; Debian's own packages leave it so until they are purged.
KEPT_BY_REMOVAL = [
    "/etc/edgewright/runtime.toml",
    "/etc/systemd/system/edgewright-runtime.service",
    "/etc/systemd/system/multi-user.target.wants/edgewright-runtime.service",
]
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
CONNECT = """
import socket
socket.socket(socket.AF_UNIX).connect("/run/edgewright/runtime.sock")
print("connected")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deb")
    subprocess.run([sys.executable, "-m", build_deb.__name__, "--out", str(out)], check=True)
    return next(out.glob("*.deb"))


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("board")
    try:
        board = Board(folder / "root").boot()
    except CannotRunError as error:
        pytest.skip(f"no clean install here, only the package's file list and unit are checked: {error}")
    place = board.root / "srv"
    (place / package.name).write_bytes(package.read_bytes())
    releases = ReleaseStore()
    releases.publish(write_network(folder / "tiny"))
    releases.write_bundle(place / "tiny.edge")
    (place / "root.json").write_bytes(releases.root)
    try:
        yield board
    finally:
        board.close()


def write_network(directory: Path) -> Path:
    """The support code's small artifact, its weights as an ONNX model for the engine that the package brings."""
    write_artifact(directory)
    (directory / "model.npz").unlink()
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", FEATURES])
    made = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", CLASSES])
    constant = onnx.numpy_helper.from_array(weights(1.0), "weights")
    graph = helper.make_graph([helper.make_node("MatMul", ["input", "weights"], ["output"])], "tiny", [given], [made], [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")
    manifest = directory / "manifest.json"
    changed = msgspec.structs.replace(
        read_manifest(manifest.read_bytes()).value,
        requires=Requirements(
            profile="x86-64-cpu", arch="x86_64", engine="onnxruntime", engine_range=EngineRange(at_least="1", below="2")
        ),
        model_file="model.onnx",
        files=tuple(
            FileEntry(name=path.name, sha256=sha256_hex(path.read_bytes()), size_bytes=path.stat().st_size)
            for path in sorted(directory.iterdir())
            if path != manifest
        ),
    )
    manifest.write_bytes(write_json(changed))
    return directory


def test_clean_board_installs_serves_recovers_and_forgets(board: Board, package: Path) -> None:
    board.run("dpkg", "--install", f"/srv/{package.name}")
    assert board.run("dpkg", "--verify", "edgewright-runtime") == ""
    until(board, lambda: board.property("ActiveState") == "active")
    findings = json.loads(board.run("edgewright-runtime", "doctor", "--json"))
    assert [one for one in findings if not one["ok"]] == []

    said = board.run("sh", "-c", f"{' '.join(NOBODY)} edgewright-runtime doctor; echo status $?")
    assert "FAIL state directory: /var/lib/edgewright is not writable" in said
    assert said.endswith("status 3")

    board.run("systemctl", "stop", "edgewright-runtime")
    board.run("edgewright-runtime", "install", "/srv/tiny.edge", "--root", "/srv/root.json")
    assert board.run("stat", "--format", "%U", "/var/lib/edgewright/state.db") == "edgewright"
    board.run("systemctl", "start", "edgewright-runtime")
    until(board, lambda: answers(board))
    assert board.run("setpriv", "--reuid=edgewright", "--clear-groups", "python3.11", "-c", SHARE) == "registered"

    crashed = int(board.property("MainPID"))
    strike(board, "KILL")
    until(board, lambda: int(board.property("MainPID")) not in (0, crashed) and answers(board))

    # A daemon that stands still, found by the watchdog; its patience shortened by a drop-in, as an operator would.
    drop_in(board, "impatient.conf", "[Service]\nWatchdogSec=2\n")
    hung = int(board.property("MainPID"))
    strike(board, "STOP")
    until(board, lambda: int(board.property("MainPID")) not in (0, hung) and answers(board))
    assert "Watchdog timeout" in board.journal()

    examples = board.root / "usr/share/doc/edgewright-runtime/examples"
    for name in ("onnxruntime-only.conf", "offline.conf", "accelerator.conf"):
        drop_in(board, name, (examples / name).read_text())
    until(board, lambda: answers(board))

    # What an operator changed outlives a reinstallation, and a program of the group may use the socket.
    (board.root / "etc/edgewright/runtime.toml").write_text('[serving]\nunix_socket = "/run/edgewright/runtime.sock"\n')
    board.run("dpkg", "--install", f"/srv/{package.name}")
    until(board, lambda: answers(board))
    assert board.run(*NOBODY[:-1], "--groups=edgewright", "python3.11", "-c", CONNECT) == "connected"

    board.run("dpkg", "--remove", "edgewright-runtime")
    assert board.property("LoadState") != "loaded"
    assert (board.root / "var/lib/edgewright/state.db").exists(), "a removal keeps what the device knows"
    assert left_over(board) == KEPT_BY_REMOVAL
    board.run("dpkg", "--purge", "edgewright-runtime")
    assert not (board.root / "var/lib/edgewright").exists()
    assert left_over(board) == []


def answers(board: Board) -> bool:
    """Whether the model serves, and rightly."""
    tensor = {"name": "input", "datatype": "FP32", "shape": list(ROWS.shape), "data": ROWS.ravel().tolist()}
    said = board.run("python3.11", "-c", ASK, json.dumps({"inputs": [tensor]}), check=False)
    if not said:
        return False
    np.testing.assert_allclose(np.reshape(json.loads(said), (len(ROWS), CLASSES)), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)
    return True


def drop_in(board: Board, name: str, text: str) -> None:
    place = board.root / "etc/systemd/system/edgewright-runtime.service.d" / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)
    board.run("systemctl", "daemon-reload")
    board.run("systemctl", "restart", "edgewright-runtime")


def strike(board: Board, signal: str) -> None:
    board.run("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", "edgewright-runtime")


def left_over(board: Board) -> list[str]:
    """Files of the package outside its state and this test's own drop-ins."""
    found = board.run("find", "/etc", "/usr", "/lib/", "/run", "-xdev", "-path", "*edgewright*", "-not", "-type", "d")
    return sorted(line for line in found.splitlines() if "edgewright-runtime.service.d" not in line)


def until(board: Board, is_so: Callable[[], bool], timeout_s: float = 60.0) -> None:
    stop = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < stop, board.journal()
        time.sleep(0.3)
