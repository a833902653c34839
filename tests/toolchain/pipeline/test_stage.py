"""When does a stage run, what does its key consist of, and what becomes of damaged entries?"""

import errno
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from toolchain.errors import CacheError, DataError, StageError
from toolchain.pipeline import cache as cache_module
from toolchain.pipeline import stage as stage_module
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.progress import Progress, Silent
from toolchain.pipeline.stage import Runner, Stage, Stored, changes


class Product(msgspec.Struct, frozen=True):
    text: str


class Longer(msgspec.Struct, frozen=True):
    """What `Product` became in a later version: its old results would decode, and lack what the new field says."""

    text: str
    more: str = ""


class Counter:
    """Makes stages and counts how often their work is really done."""

    def __init__(self) -> None:
        self.runs = 0

    def stage(self, **changes: Any) -> Stage[Product]:
        def make(work: Path, progress: Progress) -> Product:
            self.runs += 1
            (work / "file.txt").write_text("contents")
            return Product("made")

        return Stage(**{"name": "work", "revision": 1, "kind": Product, "make": make, **changes})


@pytest.fixture
def counter() -> Counter:
    return Counter()


def runner(tmp_path: Path) -> Runner:
    return Runner(StageCache(tmp_path / "cache"), Silent(), "project")


def test_a_known_key_is_not_run_again(tmp_path: Path, counter: Counter) -> None:
    first: Stored[Product] = runner(tmp_path).execute(counter.stage(inputs={"data": "1"}))
    second = runner(tmp_path).execute(counter.stage(inputs={"data": "1"}))
    assert counter.runs == 1
    assert second == first
    assert (second.folder / "file.txt").read_text() == "contents"


def test_a_result_in_another_form_is_made_again(tmp_path: Path, counter: Counter) -> None:
    runner(tmp_path).execute(counter.stage())
    runner(tmp_path).execute(counter.stage(kind=Longer))
    assert counter.runs == 2
    assert stage_module.form_of(Product) != stage_module.form_of(Longer)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"revision": 2}, "revision 1 -> 2"),
        ({"config": {"epochs": 3}}, "epochs 2 -> 3"),
        ({"config": {"epochs": 2, "more": True}}, "more none -> true"),
        ({"inputs": {"data": "2"}}, "data changed"),
        ({"inputs": {"data": "1", "labels": "1"}}, "labels changed"),
        ({"tools": ("msgspec", "numpy")}, "version of numpy none -> "),
        ({"target": "b"}, "target a -> b"),
        ({"seed": 2}, "seed 1 -> 2"),
    ],
)
def test_everything_a_stage_depends_on_is_in_its_key(tmp_path: Path, counter: Counter, change: dict[str, Any], why: str) -> None:
    base = {"config": {"epochs": 2}, "inputs": {"data": "1"}, "tools": ("msgspec",), "target": "a", "seed": 1}
    runner(tmp_path).execute(counter.stage(**base))
    again = runner(tmp_path)
    again.execute(counter.stage(**base | change))
    assert counter.runs == 2
    assert again.runs[0].ran
    assert why in again.runs[0].why


def test_another_tool_version_runs_again(tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    runner(tmp_path).execute(counter.stage(tools=("numpy",)))
    monkeypatch.setattr(stage_module, "tool_version", lambda tool: "9.9.9")
    again = runner(tmp_path)
    again.execute(counter.stage(tools=("numpy",)))
    assert counter.runs == 2
    assert "version of numpy" in again.runs[0].why


def test_equal_settings_in_another_order_or_sequence_type_are_equal(tmp_path: Path, counter: Counter) -> None:
    runner(tmp_path).execute(counter.stage(config={"a": (1, 2), "b": 3}))
    runner(tmp_path).execute(counter.stage(config={"b": 3, "a": [1, 2]}))
    assert counter.runs == 1


def entry(tmp_path: Path) -> Path:
    return next((tmp_path / "cache" / "stages").iterdir())


def damage_payload(folder: Path) -> None:
    (folder / "files" / "file.txt").write_text("c0ntents")


def damage_record(folder: Path) -> None:
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(text.replace("made", "Made", 1))


def cut_record(folder: Path) -> None:
    raw = (folder / "record.json").read_bytes()
    (folder / "record.json").write_bytes(raw[: len(raw) // 2])


def drop_payload(folder: Path) -> None:
    (folder / "files" / "file.txt").unlink()


def drop_record(folder: Path) -> None:
    (folder / "record.json").unlink()


@pytest.mark.parametrize("damage", [damage_payload, damage_record, cut_record, drop_payload, drop_record])
def test_an_untrustworthy_entry_is_a_miss_said_aloud(tmp_path: Path, counter: Counter, damage: Any) -> None:
    runner(tmp_path).execute(counter.stage())
    damage(entry(tmp_path))
    again = runner(tmp_path)
    stored = again.execute(counter.stage())
    assert counter.runs == 2
    assert "its cache entry is" in again.progress.notes[0]  # type: ignore[attr-defined]
    assert (stored.folder / "file.txt").read_text() == "contents"
    runner(tmp_path).execute(counter.stage())
    assert counter.runs == 2


def test_a_dropped_entry_is_made_again(tmp_path: Path, counter: Counter) -> None:
    runner(tmp_path).execute(counter.stage())
    shutil.rmtree(entry(tmp_path))
    again = runner(tmp_path)
    again.execute(counter.stage())
    assert counter.runs == 2


def test_failures_are_not_cached_and_leave_nothing(tmp_path: Path) -> None:
    def fail(work: Path, progress: Progress) -> Product:
        (work / "half").write_text("half")
        raise ValueError("no good")

    for _ in range(2):
        with pytest.raises(StageError, match="stage work: ValueError: no good"):
            runner(tmp_path).execute(Stage(name="work", revision=1, kind=Product, make=fail))
    assert not list((tmp_path / "cache" / "stages").iterdir())
    assert not list((tmp_path / "cache" / "work").iterdir())


def test_our_own_errors_pass_as_they_are(tmp_path: Path) -> None:
    def fail(work: Path, progress: Progress) -> Product:
        raise DataError("row 3 is NaN")

    with pytest.raises(DataError, match="row 3 is NaN"):
        runner(tmp_path).execute(Stage(name="work", revision=1, kind=Product, make=fail))


def test_two_builds_of_the_same_stage_at_once_share_one_result(tmp_path: Path, counter: Counter) -> None:
    """The second to finish finds the first one's entry and takes it."""
    inner = counter.stage()

    def make(work: Path, progress: Progress) -> Product:
        runner(tmp_path).execute(inner)
        (work / "file.txt").write_text("contents")
        return Product("made")

    outer = Stage(name="work", revision=1, kind=Product, make=make)
    stored = runner(tmp_path).execute(outer)
    assert len(list((tmp_path / "cache" / "stages").iterdir())) == 1
    assert (stored.folder / "file.txt").read_text() == "contents"


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    with pytest.raises(CacheError, match="set EDGEWRIGHT_CACHE"):
        StageCache(tmp_path / "cache")


def test_a_full_disk_keeps_nothing_half_written(tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, final: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "rename_folder", full)
        with pytest.raises(CacheError, match="No space left on device"):
            runner(tmp_path).execute(counter.stage())
    assert not list((tmp_path / "cache" / "stages").iterdir())
    assert not list((tmp_path / "cache" / "work").iterdir())
    runner(tmp_path).execute(counter.stage())
    assert counter.runs == 2


def test_changes_in_words() -> None:
    old = {"config epochs": 12, "input data": "1", "config gone": "x"}
    new = {"config epochs": 15, "input data": "2", "input labels": "1"}
    assert changes(old, new) == "epochs 12 -> 15, gone x -> none, data changed, labels changed"
