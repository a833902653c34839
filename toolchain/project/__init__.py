"""What does a new project start with, so that it builds before anything in it was changed?"""

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from toolchain.errors import UsageError
from toolchain.files import write_durably

_NAME = re.compile(r"[a-z0-9-]{1,40}")
_FILES = {"recipe.toml": "recipe.toml.in", "{module}.py": "model.py.in", "README.md": "readme.md.in"}


def create_project(folder: Path, model: str) -> list[Path]:
    """Write recipe, model module and README into `folder`, made when absent. Raises UsageError; overwrites nothing."""
    if not _NAME.fullmatch(model):
        raise UsageError(f"--model {model!r}: use 1 to 40 of a-z, 0-9 and -")
    module = _module(model)
    paths = {folder / name.format(module=module): source for name, source in _FILES.items()}
    if present := [path for path in paths if path.exists()]:
        raise UsageError(f"{present[0]} exists already; choose an empty folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, source in paths.items():
            template = Template(files("toolchain.project").joinpath(source).read_text(encoding="utf-8"))
            write_durably(path, template.substitute(model=model, module=module).encode())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from error
    return list(paths)


def _module(model: str) -> str:
    """The model's name as Python can import it."""
    module = model.replace("-", "_")
    return f"model_{module}" if keyword.iskeyword(module) or module[0].isdigit() else module
