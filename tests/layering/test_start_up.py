"""Does `--help` of each command stay clear of everything heavy?"""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch", "torchvision", "onnx", "onnxruntime", "openvino", "nncf", "neural_compressor", "mlflow", "fastapi", "sklearn", "pydantic",
    "sqlalchemy", "alembic", "cryptography", "tuf", "optuna", "pandas", "scipy", "uvicorn", "numpy",
}  # fmt: skip

PROGRAM = """
import json, sys
sys.argv = [{command!r}, "--help"]
from {command}.cli import main
try:
    code = main()
except SystemExit as stop:
    code = stop.code
print(json.dumps([code or 0, sorted({{name.partition(".")[0] for name in sys.modules}})]), file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["toolchain", "runtime", "fleet"])
def test_help_imports_nothing_heavy(command: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(command=command)], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.strip().splitlines()[-1])
    assert code == 0
    assert command in done.stdout
    assert not HEAVY & set(modules)
    assert "json" in modules  # the list is real
