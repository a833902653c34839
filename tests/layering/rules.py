"""Which of our modules may import which? The table of docs/architecture.md, as data, and the walk that reads the trees."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
OURS = ("runtime", "toolchain", "fleet", "models", "benchmarks", "tests")

# A module may import what lies below any of its prefixes; the longest matching importer decides.
ALLOWED: dict[str, tuple[str, ...]] = {
    "runtime.contract": ("runtime.contract",),
    "runtime": ("runtime",),
    "toolchain": (
        "toolchain",
        "runtime.contract",
        "runtime.backends",
        "runtime.processing",
        "runtime.errors",  # what the two above raise
        "runtime.monitor.cells",
        "runtime.monitor.streams",
        "fleet.client",
    ),
    "fleet": ("fleet", "runtime.contract", "runtime.monitor.cells"),
    "fleet.client": ("fleet.client", "runtime.contract"),
    "fleet.domain": ("fleet.domain", "fleet.errors", "runtime.contract", "runtime.monitor.cells"),
    "models": (),
    "benchmarks": OURS,
    "tests": OURS,
}


class Edge(NamedTuple):
    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def forbidden_edges(root: Path) -> list[Edge]:
    """Every import between our modules below `root` that the table does not allow."""
    return [edge for edge in edges(root) if not _is_allowed(edge)]


def edges(root: Path) -> Iterator[Edge]:
    """Every import of one of our modules by another, wherever in the file it stands."""
    for package in OURS:
        for path in sorted((root / package).rglob("*.py")):
            importer = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for imported in _imported(node):
                    if imported.split(".")[0] in OURS:
                        yield Edge(importer, imported, node.lineno)


def circle(root: Path) -> list[str]:
    """Modules of ours that need each other, in a ring; empty when none do."""
    found = list(edges(root))
    importers = {edge.importer for edge in found}
    needs: dict[str, set[str]] = {}
    for edge in found:  # `from a.b import c` is of the module a.b where there is no a.b.c
        imported = edge.imported if edge.imported in importers else edge.imported.rpartition(".")[0]
        if imported != edge.importer:
            needs.setdefault(edge.importer, set()).add(imported)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def third_party_imports(root: Path, package: str) -> set[str]:
    """Top-level names, not ours, that a package's modules import anywhere."""
    names: set[str] = set()
    for path in (root / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names |= {imported.split(".")[0] for imported in _imported(node)}
    return names - set(OURS)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        # `from a.b import c` may import the module a.b.c, so the full name is judged.
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _is_allowed(edge: Edge) -> bool:
    owner = max((name for name in ALLOWED if _below(edge.importer, name)), key=len)
    return any(_below(edge.imported, name) for name in ALLOWED[owner])


def _below(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")
