"""How is an artifact measured on another machine, which may have no more than the `runtime` package?

One ssh call: what has to run and what it runs on go as a tar through stdin into a temporary folder, which the remote shell removes at
its end; the answer comes back as JSON on stdout. The system's `ssh` is used, so keys, agents and ~/.ssh/config hold as ever.
"""

import io
import json
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolchain.benchmark.device import MODULES
from toolchain.errors import MissingError, StageError, UsageError
from toolchain.package.read import Artifact

_CONNECT_S = 10
_TIMEOUT_S = 1800.0
_SSH_FAILED = 255
_NOT_FOUND = 127


def answer_from(host: str, python: str, artifacts: Sequence[Artifact], request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`device.answer`, given by `host`. Raises MissingError without ssh, or without edgewright there; StageError when refused or broken."""
    if not host or host.startswith("-"):
        raise UsageError(f"--on {host}: expected HOST or USER@HOST, as for ssh")
    ssh = shutil.which("ssh")
    if ssh is None:
        raise MissingError("--on needs the program ssh, which is not installed: apt install openssh-client")
    command = [ssh, "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_S}", "--", host, script(python)]
    try:
        ended = subprocess.run(command, input=parcel(artifacts, request), capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise StageError(f"--on {host}: no answer after {_TIMEOUT_S:g} s; try a shorter --duration") from error
    if ended.returncode:
        raise _failure(host, python, ended.returncode, ended.stderr.decode(errors="replace"))
    try:
        found: list[dict[str, Any]] = json.loads(ended.stdout)
    except ValueError as error:
        raise StageError(f"--on {host}: its answer is no JSON; does its shell print something at login?") from error
    return found


def script(python: str) -> str:
    """What the remote shell runs. A copied `toolchain` goes first on the path, so that one installed there does not answer instead."""
    return (
        "set -e; folder=$(mktemp -d); trap 'rm -rf \"$folder\"' EXIT; "
        'tar -xzf - -C "$folder"; cd "$folder"; '
        f'PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$folder" {shlex.quote(python)} -m toolchain.benchmark.device <request.json'
    )


def parcel(artifacts: Sequence[Artifact], request: Mapping[str, Any]) -> bytes:
    """A tar.gz of the artifacts, the request, and the few modules of ours that a device lacks."""
    folders = [f"artifact{index}" for index in range(len(artifacts))]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for folder, artifact in zip(folders, artifacts, strict=True):
            for path in sorted(artifact.path.iterdir()):
                tar.add(path, f"{folder}/{path.name}", recursive=False)
        for package in ("toolchain", "toolchain/benchmark"):
            _put(tar, f"{package}/__init__.py", b"")
        for module in MODULES:
            _put(tar, f"toolchain/benchmark/{module}.py", (Path(__file__).parent / f"{module}.py").read_bytes())
        _put(tar, "request.json", json.dumps({**request, "artifacts": folders}).encode())
    return buffer.getvalue()


def _put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _failure(host: str, python: str, status: int, stderr: str) -> StageError | MissingError:
    last = (stderr.strip().splitlines() or [f"status {status}"])[-1]
    if status == _SSH_FAILED:
        return StageError(f"--on {host}: ssh cannot get there: {last}")
    if status == _NOT_FOUND:
        return MissingError(f"--on {host}: {last}; name the Python there that has edgewright with --python")
    if "No module named" in last:
        return MissingError(
            f"--on {host}: {python} there lacks a part ({last.removeprefix('ModuleNotFoundError: ')}): "
            'pip install "edgewright[onnxruntime]" there, or name another Python with --python'
        )
    return StageError(f"--on {host}: {last}")
