"""Does every import between our packages keep to the table?"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.layering.rules import ROOT, circle, edges, forbidden_edges, third_party_imports


def test_no_forbidden_import() -> None:
    found = forbidden_edges(ROOT)
    assert not found, "\n".join(map(str, found))


def test_no_modules_need_each_other(tmp_path: Path) -> None:
    assert circle(ROOT) == []
    (tmp_path / "runtime").mkdir()
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / "runtime" / f"{name}.py").write_text(f"def late():\n    from runtime.{other} import something\n")
    assert set(circle(tmp_path)) == {"runtime.a", "runtime.b"}


def test_the_walk_sees_the_tree() -> None:
    """A guard that filters its own subjects away would always pass."""
    seen = {(edge.importer.split(".")[0], edge.imported.split(".")[0]) for edge in edges(ROOT)}
    assert {("runtime", "runtime"), ("toolchain", "runtime"), ("fleet", "runtime"), ("tests", "fleet")} <= seen


@pytest.mark.parametrize(
    ("path", "source", "forbidden"),
    [
        ("runtime/contract/x.py", "import runtime.update.machine", True),
        ("runtime/contract/x.py", "from runtime import errors", True),
        ("runtime/contract/x.py", "from runtime.contract import canonical", False),
        ("runtime/serving/x.py", "def late():\n    from fleet.client import Client", True),
        ("toolchain/x.py", "from runtime.backends.base import Backend", False),
        ("toolchain/x.py", "from runtime.serving.http import app", True),
        ("toolchain/x.py", "from fleet.client.client import Client", False),
        ("toolchain/x.py", "from fleet.store import tables", True),
        ("fleet/x.py", "from runtime.monitor import cells", False),
        ("fleet/x.py", "from runtime.monitor import monitor", True),
        ("fleet/x.py", "import toolchain.recipe", True),
        ("fleet/client/x.py", "from fleet.domain import rollout", True),
        ("fleet/domain/x.py", "from fleet.store import tables", True),
        ("models/digits/x.py", "from toolchain import recipe", True),
    ],
)
def test_each_rule_bites(tmp_path: Path, path: str, source: str, forbidden: bool) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert bool(forbidden_edges(tmp_path)) is forbidden


def test_the_contract_needs_little_beyond_the_standard_library() -> None:
    allowed = {"msgspec", "tuf", "cryptography"}
    foreign = third_party_imports(ROOT, "runtime/contract") - _standard_library()
    # Chunks are cut at 5 MB/s by the standard library alone and at 300 MB/s by NumPy, which both ends have anyway.
    assert foreign == allowed | {"numpy"}


def test_only_cutting_chunks_costs_numpy_in_the_contract() -> None:
    program = "import sys, runtime.contract.chunks; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    users = [path.name for path in (ROOT / "runtime/contract").glob("*.py") if "import numpy" in path.read_text()]
    assert users == ["chunks.py"]


def test_the_domain_knows_no_framework() -> None:
    assert third_party_imports(ROOT, "fleet/domain") - _standard_library() <= {"msgspec", "numpy"}


def _standard_library() -> frozenset[str]:
    return sys.stdlib_module_names
