"""What does a data source's result depend on, and does it have to run again?

Its code and local imports, its options, the versions of what it imports, and the contents of the files it opened the last time.
A source that reads anything else says so with a function `fingerprint(**options)` beside it, or runs in every build.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from toolchain.data.code import (
    Closure,
    Reference,
    bytes_digest,
    callable_in,
    closure_of,
    distributions,
    find_callable,
    loaded,
    local_modules,
)
from toolchain.data.trace import Recorder, Trace, recording
from toolchain.errors import BuildError, DataError, RecipeError
from toolchain.files import write_durably
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.stage import ABSENT, digest_of

KEY = "data.source"
BUILT_IN = {"imagefolder": ("imagefolder", ("PIL",))}
"""Sources by the word before the colon, each a module here with a callable `splits`, and what decides its result beside NumPy.

What stands behind the colon is a path beside the recipe.
"""

_MANY = 100
"""Files from which on a record names folders instead: a hundred thousand images are not told apart by name."""


class Resolved(msgspec.Struct, frozen=True):
    """A source's callable, the code it consists of, and the arguments it gets."""

    reference: Reference
    closure: Closure
    arguments: dict[str, Any]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a source's last run with the same code and options. tools: distributions behind its imports."""

    trace: Trace
    tools: tuple[str, ...]


class DataSource:
    """One `[data] source` with its options."""

    def __init__(self, text: str, options: dict[str, Any], folder: Path, cache: StageCache) -> None:
        resolved = resolve(text, options, folder)
        self.reference: Reference = resolved.reference
        self.closure: Closure = resolved.closure
        self._arguments = resolved.arguments
        self._cache = cache
        self.code = bytes_digest(self.closure)
        # The place belongs to what is remembered, though never to a key: a copy of the project reads its own files.
        static = {
            "source": self.reference.text, "code": self.code, "options": options, "place": str(self.reference.folder.resolve()),
        }  # fmt: skip
        self._memory_path = cache.root / "traces" / digest_of(static)

    def inputs(self) -> tuple[dict[str, str], tuple[str, ...], str]:
        """Content digests of all it depends on, the distributions it imports, and why it must run anyway (or "")."""
        inputs = {"code of the data source": self.code}
        memory = self._recall()
        declared = self._declared_fingerprint()
        if declared is not None:
            return inputs | {"fingerprint of the data source": declared}, memory.tools if memory else (), ""
        if memory is None:
            return inputs, (), "what the data source reads is not known yet"
        inputs |= _by_name("file", memory.trace.files, self._file)
        inputs |= _by_name("folder", memory.trace.folders, _listing)
        distrust = "; ".join(memory.trace.unseen)
        return inputs, memory.tools, f"{distrust}, so it runs in every build unless it declares fingerprint()" if distrust else ""

    def run(self, finish: Callable[[Any], Any] = lambda result: result) -> Any:
        """Call the source and remember what it opened. Raises DataError when it fails, RecipeError when it is not there.

        finish: gets what the source returned while it is still watched, for a source may open its files only as they are asked for.
        """
        started_ns = time.time_ns()
        with recording(self._is_local) as recorder, self._loaded() as module:
            function = callable_in(module, self.reference, KEY)
            result = self._call(lambda **arguments: finish(function(**arguments)))
            recorder.files |= local_modules(self.reference) - {str(file) for file in self.closure.files}
        self._remember(recorder, started_ns)
        return result

    def _loaded(self) -> AbstractContextManager[Any]:
        return loaded(self.reference, KEY)

    def _call(self, function: Callable[..., Any]) -> Any:
        try:
            return function(**self._arguments)
        except BuildError:
            raise
        except Exception as error:
            raise DataError(f"{KEY} {self.reference.text!r}: {type(error).__name__}: {error}") from error

    def _remember(self, recorder: Recorder, started_ns: int) -> None:
        for name in recorder.files:
            if _modified_since(name, started_ns):  # what was read may be older than what would be hashed now
                recorder.unseen.add(f"{Path(name).name} changed while it was read")
        tools = tuple(sorted({name for imported in self.closure.imports for name in distributions(imported)}))
        memory = Memory(trace=recorder.trace(self.closure.imports), tools=tools)
        write_durably(self._memory_path, msgspec.json.encode(memory))

    def _is_local(self, module: str) -> bool:
        place = self.reference.folder / module.partition(".")[0]
        return self.reference.file is not None and (place.with_suffix(".py").is_file() or place.is_dir())

    def _recall(self) -> Memory | None:
        try:
            memory = msgspec.json.decode(self._memory_path.read_bytes(), type=Memory)
        except (OSError, msgspec.MsgspecError):
            return None
        return memory if memory.trace.directory in ("", str(Path.cwd())) else None

    def _declared_fingerprint(self) -> str | None:
        """What the module's own `fingerprint` says; None without one. Told by the source text, so that most never load."""
        if not any(b"def fingerprint(" in file.read_bytes() for file in self.closure.files if file == self.reference.file):
            return None
        with self._loaded() as module:
            return digest_of(str(self._call(module.fingerprint)))

    def _file(self, name: str) -> str:
        path = Path(name)
        try:
            return self._cache.hashes.digest(path) if path.is_file() else ABSENT
        except OSError as error:
            return f"unreadable: {error.strerror}"


def resolve(text: str, options: dict[str, Any], folder: Path) -> Resolved:
    """What a recipe's `data.source` stands for, without running it. Raises RecipeError."""
    word, _, place = text.partition(":")
    if word not in BUILT_IN:
        reference = find_callable(text, folder, KEY)
        return Resolved(reference, closure_of(reference), options)
    if "path" in options:
        raise RecipeError(f"data.options.path: {text!r} already names the path")
    module, imports = BUILT_IN[word]
    reference = Reference(text, f"toolchain.data.{module}", "splits", folder, None)
    closure = Closure((Path(__file__).with_name(f"{module}.py"),), imports)
    return Resolved(reference, closure, {**options, "path": str((folder / place).absolute())})


def _by_name(what: str, names: tuple[str, ...], digest: Callable[[str], str]) -> dict[str, str]:
    """Digests by the last part of the path, for the rest of a path must not decide; several of one name count together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        path = Path(name)
        label, known = (path.name, digest(name)) if len(names) < _MANY else (f"in {path.parent.name}", path.name + digest(name))
        groups.setdefault(f"{what} {label}", []).append(known)
    return {label: digests[0] if len(digests) == 1 else digest_of(digests) for label, digests in groups.items()}


def _modified_since(name: str, started_ns: int) -> bool:
    try:
        return Path(name).stat().st_mtime_ns >= started_ns
    except OSError:
        return False


def _listing(name: str) -> str:
    try:
        return digest_of(sorted(entry.name for entry in Path(name).iterdir()))
    except OSError:
        return ABSENT
