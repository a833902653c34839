"""Is a file's digest right although unchanged files are not read again?"""

import os
import time
from pathlib import Path

import pytest

from toolchain.files import sha256_file
from toolchain.pipeline import filehash
from toolchain.pipeline.filehash import FileHashes


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A file last modified long before now. (Its change time is now: that cannot be set.)"""
    path = tmp_path / "data"
    path.write_bytes(b"one")
    set_old(path)
    return path


def set_old(path: Path) -> None:
    long_ago = time.time_ns() - 10**12
    os.utime(path, ns=(long_ago, long_ago))


def reads(hashes: FileHashes, path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether asking for the digest reads the file."""
    seen = []
    monkeypatch.setattr(filehash, "sha256_file", lambda path: seen.append(path) or sha256_file(path))
    assert hashes.digest(path) == sha256_file(path)
    return bool(seen)


def test_an_old_unchanged_file_is_read_once(old_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filehash, "RACY_NS", -(10**12))  # as if long ago had been the change time as well
    index = tmp_path / "index"
    hashes = FileHashes(index)
    assert reads(hashes, old_file, monkeypatch)
    assert not reads(hashes, old_file, monkeypatch)
    hashes.save()
    assert not reads(FileHashes(index), old_file, monkeypatch)


def test_a_file_modified_just_now_is_racy_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"one")
    hashes = FileHashes(tmp_path / "index")
    hashes.digest(path)
    assert reads(hashes, path, monkeypatch)


def test_a_write_that_keeps_size_and_time_is_seen_by_its_change_time(old_file: Path, tmp_path: Path) -> None:
    hashes = FileHashes(tmp_path / "index")
    before = hashes.digest(old_file)
    stat = old_file.stat()
    old_file.write_bytes(b"two")
    os.utime(old_file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hashes.digest(old_file) != before


def test_rehash_trusts_no_stat(old_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that is the same in every field, as after restoring a disk image."""
    index = tmp_path / "index"
    monkeypatch.setattr(filehash, "RACY_NS", -(10**12))
    monkeypatch.setattr(filehash, "_same", lambda seen, stat: True)
    hashes = FileHashes(index)
    before = hashes.digest(old_file)
    hashes.save()
    old_file.write_bytes(b"two")
    assert FileHashes(index).digest(old_file) == before  # the premise: nothing shows in the stat
    rehashed = FileHashes(index, rehash=True)
    assert rehashed.digest(old_file) == sha256_file(old_file)
    assert not reads(rehashed, old_file, monkeypatch)  # once a build is enough


def test_a_damaged_index_costs_time_only(old_file: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    index.write_bytes(b"\xff not an index")
    assert FileHashes(index).digest(old_file) == sha256_file(old_file)


def test_the_index_forgets_files_that_are_gone(old_file: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    hashes = FileHashes(index)
    hashes.digest(old_file)
    hashes.save()
    size = index.stat().st_size
    other = tmp_path / "other"
    other.write_bytes(b"x")
    old_file.unlink()
    hashes = FileHashes(index)
    hashes.digest(other)
    hashes.save()
    assert index.stat().st_size < size + 10
