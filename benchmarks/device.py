"""What does a device pay? Size of its install, memory of the daemon, CPU until the first inference; with real digits."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.demo.local_fleet import CHECKOUT, Device, LocalFleet, all_serve, roll_out_at_once, wait_for
from benchmarks.demo.traffic import DeviceError, DigitsClient, Images, held_out_digits
from benchmarks.figures import Figure

MB = 1e6
UNWANTED = {"torch", "fastapi", "pydantic"}
INFERENCES = 500


def measure() -> Iterator[Figure]:
    yield from measure_install()
    yield from measure_daemon()


def measure_install() -> Iterator[Figure]:
    """A new environment with `edgewright[onnxruntime]` from the lock: apparent size, without pip and bytecode."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        install = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--python", f"{folder}/bin/python"]
        subprocess.run([*install, "--require-hashes", "-r", str(CHECKOUT / "requirements" / "device.txt")], check=True)
        source = Path(folder) / "source"
        for package in ("runtime", "toolchain", "fleet"):
            shutil.copytree(CHECKOUT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(CHECKOUT / file, source)
        subprocess.run([*install, "--no-deps", str(source)], check=True)
        packages = next(Path(folder).glob("lib/python*/site-packages"))
        files = [path for path in packages.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        found = UNWANTED & {path.name for path in packages.iterdir()}
        yield Figure(name="device install", value=sum(path.stat().st_size for path in files) / MB, unit="MB", limit=150)
        yield Figure(name="unwanted packages in it", value=len(found), unit="", limit=0, how=", ".join(sorted(UNWANTED)))


def measure_daemon() -> Iterator[Figure]:
    """One device of a real fleet: after an update and some hundred inferences, then started anew."""
    images, _ = held_out_digits()
    with tempfile.TemporaryDirectory() as folder:
        fleet = LocalFleet(Path(folder))
        try:
            fleet.create()
            fleet.start_service()
            fleet.authorize()
            release = fleet.build("1.0.0")
            fleet.publish(release)
            device = fleet.add_device("bench")
            wait_for("the device reports", lambda: fleet.reported_devices() == 1, 30)
            roll_out_at_once(fleet, "1.0.0")
            wait_for("the device serves", lambda: all_serve(fleet, "1.0.0"), 60)
            _wait_for_commit(device)
            device.stop()
            device.start()
            first_cpu_s = _cpu_until_first_inference(device.port, device.pid, images[:1])
            rss_mb = _resident_after_inferences(device, images)
            bare_mb = _resident_of_engine(next(release.glob("*/model.onnx")))
            fleet.publish(fleet.build("1.1.0", {"model.options.width": "24"}))
            roll_out_at_once(fleet, "1.1.0")
            wait_for("the device serves the wider network", lambda: all_serve(fleet, "1.1.0"), 60)
            _wait_for_commit(device)
            updated_mb = _resident_after_inferences(device, images)
        finally:
            fleet.close()
    yield Figure(
        name="daemon, first inference, CPU", value=first_cpu_s, unit="s", limit=0.5, how="from exec on, model in its slot"
    )
    yield Figure(
        name="daemon, resident memory", value=rss_mb, unit="MB", limit=85, how=f"connected, {INFERENCES} inferences of digits"
    )
    yield Figure(name="the same - a process with the bare engine", value=rss_mb - bare_mb, unit="MB", limit=30)
    yield Figure(
        name="the same, updated while it served", value=updated_mb, unit="MB", limit=85, how="to a network of twice the size"
    )


def _wait_for_commit(device: Device) -> None:
    """Until then a version runs in a process of its own, whose memory and CPU would be missing from the daemon's."""

    def is_alone() -> bool:
        return not any(path.read_text().split() for path in Path(f"/proc/{device.pid}/task").glob("*/children"))

    wait_for("the version is committed and opened in the daemon", is_alone, 120)


def _resident_after_inferences(device: Device, images: Images) -> float:
    client = DigitsClient(device.port)
    for index in range(INFERENCES):
        client.infer(images[index % len(images)][None])
    client.close()
    return _resident_bytes(Path(f"/proc/{device.pid}/status").read_text()) / MB


def _resident_of_engine(model: Path) -> float:
    """A program that runs the same network as often with ONNX Runtime's own session, and does nothing else."""
    program = (
        "import sys\n"
        "import numpy as np, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "given = session.get_inputs()[0]\n"
        "image = np.zeros([1, *given.shape[1:]], np.float32)\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    session.run(None, {given.name: image})\n"
        "print(open('/proc/self/status').read())\n"
    )
    command = [sys.executable, "-c", program, str(model), str(INFERENCES)]
    return _resident_bytes(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / MB


def _cpu_until_first_inference(port: int, pid: int, image: Images) -> float:
    client = DigitsClient(port)

    def answered() -> bool:
        try:
            client.infer(image)
        except DeviceError:
            return False
        return True

    wait_for("the first inference", answered, 30, every_s=0.02)
    cpu_s = _cpu_seconds(pid)
    client.close()
    return cpu_s


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_bytes(status: str) -> int:
    """status: what Linux tells of a process in /proc/PID/status."""
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
