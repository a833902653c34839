"""What did a data source read while it ran?

Python announces every file it opens and every folder it lists (PEP 578); what is read past that (sockets, child processes,
libraries that open files in their own native code) cannot be seen, and is reported as such instead of being missed.
What an installed module does while it is imported is left out: its distribution's version stands for it.
"""

import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

_CODE_SUFFIXES = (".py", ".pyc", ".so", ".pth", ".pyd", ".dylib")
_METADATA_SUFFIXES = (".dist-info", ".egg-info")
_IMPORT_SYSTEM = ("<frozen importlib", "<frozen zipimport")
_KERNEL = ("/proc/", "/sys/", "/dev/")
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_UNSEEN_EVENTS = {
    "socket.connect": "it opens a network connection",
    "subprocess.Popen": "it starts a process",
    "os.system": "it starts a process",
    "os.fork": "it forks a process",
    "os.posix_spawn": "it starts a process",
}
_HEARD = frozenset({"open", "os.listdir", "os.scandir", "sqlite3.connect", *_UNSEEN_EVENTS})
_NATIVE_READERS = (
    "cv2",
    "decord",
    "duckdb",
    "h5py",
    "lmdb",
    "netCDF4",
    "polars",
    "pyarrow",
    "rasterio",
    "soundfile",
    "torchaudio",
)
"""Libraries that read files in native code, where no audit event is raised."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Files opened for reading (those that did not exist too), folders listed, and why this may not be all.

    directory: the working directory, where a relative path was opened, so that from another one other files would be read.
    """

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    directory: str = ""


class Recorder:
    """Collects what happens while one source runs, whichever thread does it. is_local: whether a module is the source's own."""

    def __init__(self, is_local: Callable[[str], bool]) -> None:
        self._is_local = is_local
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.unseen: set[str] = set()
        self.directory = ""

    def trace(self, imports: tuple[str, ...]) -> Trace:
        native = {f"it imports {name}, which reads files out of sight" for name in imports if name in _NATIVE_READERS}
        return Trace(
            files=tuple(sorted(self.files)), folders=tuple(sorted(self.folders)), unseen=tuple(sorted(self.unseen | native)),
            directory=self.directory,
        )  # fmt: skip

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _HEARD or self._imports():
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and _reads(mode, flags):
                self._add(self.files, path)
        elif event in ("os.listdir", "os.scandir"):
            path = arguments[0]
            if not isinstance(path, int):
                self._add(self.folders, path if path is not None else ".")
        elif event == "sqlite3.connect":
            self._add(self.files, arguments[0])
        else:
            self.unseen.add(_UNSEEN_EVENTS[event])

    def _imports(self) -> bool:
        """Whether the event comes from the import system, or from code of an installed module that is being imported."""
        frame: FrameType | None = sys._getframe(3)  # above this method, `hear` and the hook: the caller of the audited function
        if frame is not None and frame.f_code.co_filename.startswith(_IMPORT_SYSTEM):
            return True
        while frame is not None:
            imports = frame.f_code.co_name == "_find_and_load" and frame.f_code.co_filename.startswith(_IMPORT_SYSTEM)
            if imports and not self._is_local(frame.f_locals["name"]):
                return True
            frame = frame.f_back
        return False

    def _add(self, where: set[str], path: Any) -> None:
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a Path per event would slow every open of the process
        if name.startswith(_KERNEL) or _is_code(name):
            return
        where.add(name)
        if not os.path.isabs(os.fsdecode(path)):  # noqa: PTH117 - as above
            self.directory = str(Path.cwd())


_current: list[Recorder] = []
_hook_lock = threading.Lock()
_hooked = False


@contextmanager
def recording(is_local: Callable[[str], bool]) -> Iterator[Recorder]:
    """Record everything this process opens while the block runs."""
    _install_hook()
    recorder = Recorder(is_local)
    _current.append(recorder)
    try:
        yield recorder
    finally:
        _current.remove(recorder)


def _install_hook() -> None:
    """Audit hooks cannot be removed, so there is one for the life of the process, idle unless someone records."""
    global _hooked  # noqa: PLW0603 - as lasting as the hook itself
    with _hook_lock:
        if not _hooked:
            sys.addaudithook(_on_event)
            _hooked = True


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    for recorder in _current:
        recorder.hear(event, arguments)


def _reads(mode: str | None, flags: int) -> bool:
    if mode is not None:
        return "r" in mode or "+" in mode
    return flags & os.O_ACCMODE != os.O_WRONLY


def _is_code(name: str) -> bool:
    """Installed code counts through its distribution's version, local code through its bytes."""
    if name.endswith(_CODE_SUFFIXES) or "__pycache__" in name:
        return True
    installed = any(name.startswith(f"{place}{os.sep}") or name == place for place in _INSTALLED)
    return installed and (os.path.isdir(name) or any(part.endswith(_METADATA_SUFFIXES) for part in Path(name).parts))  # noqa: PTH112 - as above
