"""Does mypy know TensorRT's API from the public stubs, so that a call TensorRT would refuse does not even reach a GPU?"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MODULES = ("runtime/backends/tensorrt.py", "runtime/backends/tensorrt_build.py")
WRONG = {
    'builder.create_network(flags="strong")': "arg-type",
    "builder.build_engine(network, config)": "attr-defined",
    "config.max_workspace_size = 1": "attr-defined",
    "config.set_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)": "arg-type",
    'profile.set_shape("input", (1, 6), (1, 6), (8, 6))': "arg-type",
    "trt.OnnxParser(network)": "call-arg",
    'context.set_tensor_address("input", "0x7f00")': "arg-type",
    "context.execute_async_v2([0], 0)": "attr-defined",
    "trt.Runtime()": "call-arg",
}
RIGHT = (
    "builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))",
    "builder.build_serialized_network(network, config)",
    'profile.set_shape("input", trt.Dims([1, 6]), trt.Dims([1, 6]), trt.Dims([8, 6]))',
    'context.set_tensor_address("input", 0x7F00)',
    "context.execute_async_v3(0)",
)


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """A function that checks files under the project's own settings and returns mypy's lines."""
    cache = tmp_path_factory.mktemp("mypy")

    def check(*paths) -> list[str]:
        command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", str(cache), *map(str, paths)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()

    return check


def write(folder: Path, calls) -> Path:
    path = folder / "calls.py"
    head = (
        "import tensorrt as trt\n\n\n"
        "def calls(builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig,\n"
        "          profile: trt.IOptimizationProfile, context: trt.IExecutionContext) -> None:\n"
    )
    path.write_text(head + "".join(f"    {call}\n" for call in calls))
    return path


def test_the_backend_is_clean_against_the_stubs(mypy):
    assert mypy(*MODULES)[-1].startswith("Success")


def test_every_wrong_call_is_reported_and_no_right_one(mypy, tmp_path):
    lines = [line for line in mypy(write(tmp_path, [*WRONG, *RIGHT])) if ": error: " in line]
    reported = {int(line.split(":")[1]): line.rpartition("[")[2].rstrip("]") for line in lines}
    assert reported == dict(enumerate(WRONG.values(), start=6))
