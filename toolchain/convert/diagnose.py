"""Which operator, on which line of the engineer's own module, keeps a network from being expressed as ONNX?"""

import linecache
import re
import site
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_NODE = re.compile(r"translating node %(\w+)")
_OPERATOR = re.compile(r"(?:OpOverload\(op='|target=torch\.ops\.)([\w.]+)")
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')
_BRANCH = "data-dependent"
_OURS = Path(__file__).parents[1]


def explain(error: BaseException, network: "nn.Module", examples: tuple[Any, ...]) -> str:
    """One line: the operator or the reason, and file, line and text of the module, as far as the exporter tells them.

    examples: the tensors it was traced with; a network that can be traced but not translated is traced once more to find the line.
    """
    texts = [str(each) for each in _chain(error)]
    operators = [found.group(1) for text in texts for found in _OPERATOR.finditer(text)]
    nodes = [found.group(1) for text in texts for found in _NODE.finditer(text)]
    if operators:
        reason = f"ONNX has no operator for {operators[0]}"
        place = _line_of_node(nodes[0], network, examples) if nodes else ""
    elif any(_BRANCH in text for text in texts):
        reason, place = "it branches on the values of a tensor, which a fixed graph cannot (torch.where can)", _line_of(error)
    else:
        reason, place = _first_line(texts[-1]) or type(error).__name__, _line_of(error)
    return f"{reason}{f'; {place}' if place else ''}"


def _line_of_node(name: str, network: "nn.Module", examples: tuple[Any, ...]) -> str:
    import torch

    program = torch.export.export(network, examples)
    for graph in (program.graph, program.run_decompositions().graph):
        for node in graph.nodes:
            if node.name == name:
                return _own_place(_PLACE.findall(node.meta.get("stack_trace") or ""))
    return ""


def _line_of(error: BaseException) -> str:
    """From the frames the exception went through, and from those its text quotes."""
    for each in _chain(error):
        frames = [(frame.filename, str(frame.lineno)) for frame in traceback.extract_tb(each.__traceback__)]
        if place := _own_place([*frames, *_PLACE.findall(str(each))]):
            return place
    return ""


def _own_place(places: list[tuple[str, str]]) -> str:
    """The innermost place that lies in no library: "net.py line 14: if y.sum() > 0:"."""
    for file, line in reversed(places):
        if _is_own(Path(file)):
            return f"{Path(file).name} line {line}: {linecache.getline(file, int(line)).strip()}"
    return ""


def _is_own(file: Path) -> bool:
    libraries = (*map(Path, site.getsitepackages()), Path(linecache.__file__).parent, _OURS)
    return file.is_file() and not any(file.is_relative_to(library) for library in libraries)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what caused it, the outermost first."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
