"""Which code does a callable named in a recipe consist of, and how is it loaded?

A reference is "FILE:callable" beside the recipe or "package.module:callable". A file's local imports (modules beside it) are
part of it. Files are compiled from their source each time: Python's own bytecode cache trusts size and time, we do not.
"""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, cast

import msgspec

from toolchain.errors import BuildError, RecipeError


class Reference(msgspec.Struct, frozen=True):
    """A callable by name. file is None for an installed module."""

    text: str
    module: str
    attribute: str
    folder: Path
    file: Path | None


class Closure(msgspec.Struct, frozen=True):
    """All local files a callable consists of, sorted, and the top-level names of everything else they import."""

    files: tuple[Path, ...]
    imports: tuple[str, ...]


def find_callable(text: str, folder: Path, key: str) -> Reference:
    """Resolve a reference without running it. key: the recipe's key, for the error. Raises RecipeError."""
    module, _, attribute = text.partition(":")
    if not module.endswith(".py"):
        return Reference(text, module, attribute, folder, None)
    file = (folder / module).resolve()
    if not file.is_file():
        raise RecipeError(f"{key}: {text!r} names {module}, which is not in {folder}")
    return Reference(text, file.stem, attribute, file.parent, file)


def closure_of(reference: Reference) -> Closure:
    """Follow a file's imports through the modules beside it. Raises RecipeError when one does not parse."""
    if reference.file is None:
        return Closure((), (reference.module.partition(".")[0],))
    files: set[Path] = set()
    imports: set[str] = set()
    waiting = [reference.file]
    while waiting:
        file = waiting.pop()
        if file in files:
            continue
        files.add(file)
        for name in _imported_names(file, reference.folder):
            local = [path for path in _local_files(name, reference.folder) if path.is_file()]
            waiting.extend(local)
            if not local:
                imports.add(name.partition(".")[0])
    return Closure(tuple(sorted(files)), tuple(sorted(imports - sys.stdlib_module_names)))


def bytes_digest(closure: Closure) -> str:
    """Digest of the files' bytes: any change counts, a comment too."""
    return hashlib.sha256(b"\0".join(file.name.encode() + b"\0" + file.read_bytes() for file in closure.files)).hexdigest()


def meaning_digest(closure: Closure) -> str:
    """Digest of what the files mean to Python: layout and comments do not count, everything else does."""
    trees = [f"{file.name}\0{ast.dump(ast.parse(file.read_bytes()))}" for file in closure.files]
    return hashlib.sha256("\0".join(trees).encode()).hexdigest()


def distributions(imported: str) -> tuple[str, ...]:
    """The installed distributions that provide a top-level module; empty when there is none."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    try:
        version(imported)
    except PackageNotFoundError:  # the module has another name than its distribution: reading all of them takes 0.2 s
        return tuple(packages_distributions().get(imported, ()))
    return (imported,)


@contextmanager
def loaded(reference: Reference, key: str) -> Iterator[ModuleType]:
    """The reference's module, freshly executed; its local imports are forgotten again afterwards, so edits are always seen.

    Raises BuildError naming the key when the module cannot be imported.
    """
    shadowed = sys.modules.pop(reference.module, None) if reference.file is not None else None
    before = set(sys.modules)
    finder = _FreshFinder(reference.folder)
    if reference.file is not None:
        sys.meta_path.insert(0, finder)
    try:
        yield _import(reference, key)
    finally:
        if reference.file is not None:
            sys.meta_path.remove(finder)
        for name in [name for name in set(sys.modules) - before if _is_below(name, reference)]:
            del sys.modules[name]
        if shadowed is not None:
            sys.modules[reference.module] = shadowed


def local_modules(reference: Reference) -> set[str]:
    """Files of all modules loaded now that lie beside the reference, those imported by a computed name too."""
    return {str(sys.modules[name].__file__) for name in list(sys.modules) if _is_below(name, reference)}


def callable_in(module: ModuleType, reference: Reference, key: str) -> Callable[..., Any]:
    """The callable itself. Raises RecipeError when the module has none of that name."""
    found = getattr(module, reference.attribute, None)
    if not callable(found):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        own = [name for name in known if getattr(getattr(module, name), "__module__", None) == module.__name__]
        raise RecipeError(f"{key}: {reference.text!r} has no callable {reference.attribute!r}; it has {', '.join(own) or 'none'}")
    return cast(Callable[..., Any], found)


def _import(reference: Reference, key: str) -> ModuleType:
    try:
        return importlib.import_module(reference.module)
    except BuildError:
        raise
    except ModuleNotFoundError as error:
        raise RecipeError(f"{key}: {reference.text!r} cannot be imported: {error}") from error
    except Exception as error:
        raise RecipeError(f"{key}: {reference.text!r} fails on import: {type(error).__name__}: {error}") from error


def _is_below(name: str, reference: Reference) -> bool:
    origin = getattr(sys.modules[name], "__file__", None)
    if origin is None or reference.file is None:
        return False
    return Path(origin).is_relative_to(reference.folder) and not origin.startswith(sys.prefix)


class _FreshLoader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _FreshFinder:
    """Finds modules in one folder (and packages below it) before anything installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        for folder in [str(self._folder)] if path is None else list(path):
            if Path(folder).is_relative_to(self._folder):
                found = FileFinder(folder, (_FreshLoader, [".py"])).find_spec(name)
                if found is not None and found.loader is not None:
                    return found
        return None

    def invalidate_caches(self) -> None:
        """Nothing is kept between look-ups."""


def _imported_names(file: Path, root: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise RecipeError(f"{file}: not valid Python: {error}") from error
    package = ".".join(file.parent.relative_to(root).parts) if file.is_relative_to(root) else ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if package else []
                base = ".".join([*above, base]).strip(".")
            if base:
                yield base
            yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)


def _local_files(name: str, folder: Path) -> Iterator[Path]:
    """Where a dotted name would lie below the folder, its parent packages included."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:length])
        yield place.with_suffix(".py")
        yield place / "__init__.py"
