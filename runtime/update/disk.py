"""How much of the disk do artifacts take, and may one more come?"""

from collections.abc import Iterable
from pathlib import Path

from runtime.contract.artifact import read_manifest
from runtime.contract.errors import ContractError
from runtime.errors import DiskFullError


def taken_bytes(state_dir: Path) -> int:
    """Bytes in blobs and slots. A file under several names, as a blob in a slot is, counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for root in (state_dir / "blobs", state_dir / "models"):
        for path in root.rglob("*"):
            status = path.lstat()
            if not path.is_dir():
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def require_budget(state_dir: Path, needed_bytes: int, disk_bytes: int) -> None:
    """Raise DiskFullError when so many more bytes would go beyond the budget. disk_bytes: 0 for none."""
    if not disk_bytes or not needed_bytes:
        return
    taken = taken_bytes(state_dir)
    if taken + needed_bytes > disk_bytes:
        raise DiskFullError(
            f"the artifact needs {needed_bytes} bytes more; update.disk_bytes allows {disk_bytes}, "
            f"of which the serving versions and those to fall back to take {taken}"
        )


def blobs_of(folder: Path, manifests: Iterable[str]) -> set[str]:
    """These manifests and every blob they name, as far as they have come already."""
    names: set[str] = set()
    for sha256 in manifests:
        names.add(sha256)
        try:
            names.update(entry.sha256 for entry in read_manifest((folder / sha256).read_bytes()).value.files)
        except (OSError, ContractError):
            continue  # not here, or not whole: the fetch that needs it brings it again
    return names
