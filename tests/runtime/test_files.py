"""Does a write leave the old content or the new, and nothing else?"""

import errno
import os
import resource
import stat
import tempfile
from pathlib import Path

import pytest

from runtime import files
from runtime.errors import ConfigError, DiskFullError


def test_a_write_replaces_the_content_and_sets_the_mode(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"old")
    files.write_durably(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_file_and_directory_reach_the_disk_before_a_write_returns(tmp_path, monkeypatch):
    steps = []
    real_fsync, real_rename = os.fsync, files.Path.rename
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (steps.append("dir" if files.Path(f"/proc/self/fd/{handle}").is_dir() else "file"), real_fsync(handle)),
    )
    monkeypatch.setattr(files.Path, "rename", lambda self, target: (steps.append("rename"), real_rename(self, target))[1])
    files.write_durably(tmp_path / "x", b"data")
    assert steps == ["file", "rename", "dir"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_write_keeps_the_old_content_and_leaves_nothing(tmp_path, monkeypatch, number):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError if number == errno.EIO else DiskFullError):
        files.write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_file_over_the_size_limit_is_a_full_disk(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DiskFullError):
            files.write_durably(tmp_path / "x", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_symlink_is_never_absent_while_it_moves(tmp_path, monkeypatch):
    link = tmp_path / "active"
    files.point_symlink(link, "a")
    seen = []
    real = files.Path.rename
    monkeypatch.setattr(files.Path, "rename", lambda self, target: (seen.append(str(link.readlink())), real(self, target))[1])
    files.point_symlink(link, "b")
    assert seen == ["a"]
    assert str(link.readlink()) == "b"


def test_leftovers_of_an_interrupted_write_do_not_stand_in_the_way(tmp_path):
    (tmp_path / "x.tmp").write_bytes(b"half")
    files.write_durably(tmp_path / "x", b"whole")
    (tmp_path / "l.tmp").symlink_to("nowhere")
    files.point_symlink(tmp_path / "l", "x")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["l", "x"]


def test_a_state_directory_has_one_master(tmp_path):
    with files.held_alone(tmp_path), pytest.raises(ConfigError, match="in use"), files.held_alone(tmp_path):
        pass
    with files.held_alone(tmp_path):
        pass


def test_a_state_directory_that_cannot_be_made_is_said_with_a_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be made: .*; name one of yours: --set device.state_dir"):
        files.make_state_directory(tmp_path / "file" / "state")
    files.make_state_directory(tmp_path / "new" / "state")
    assert (tmp_path / "new" / "state").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_state_directory_of_another_user_is_refused():
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(ConfigError, match="belongs to another user"):
                files.make_state_directory(Path(name))
        finally:
            os.seteuid(0)
