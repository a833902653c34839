"""Is what a device has already found, hashed before it is used, and fetched where it is not what it was?"""

import hashlib
import io
import itertools

import pytest

from runtime.contract import chunks
from runtime.update.delta import _STRIKES, Assembly, LocalChunks, Plan, Step, files_of_model, read_plan, write_plan

OLD = hashlib.shake_256(b"old").digest(600_000)
NEW = OLD[:300_000] + hashlib.shake_256(b"new").digest(100_000) + OLD[300_000:]


def cut(data):
    return list(chunks.cut(io.BytesIO(data).read))


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(OLD)
    return path


@pytest.fixture
def plan(old):
    return LocalChunks([old]).plan(cut(NEW))


def assemble(plan, fetch=NEW, most=10**9):
    """The blob, and the stretches that had to be fetched."""
    assembly, built, fetched = Assembly(plan), b"", []
    while len(built) < len(NEW):
        data, end = assembly.following(len(built))
        if not data:
            end = min(end, len(built) + most)
            fetched.append((len(built), end))
            data = fetch[len(built) : end]
        built += data
    return built, fetched


def test_only_what_is_new_is_fetched_in_one_stretch(plan):
    built, fetched = assemble(plan)
    assert built == NEW
    assert len(fetched) == 1
    assert 100_000 <= sum(end - start for start, end in fetched) <= 100_000 + 2 * chunks.MAX_BYTES
    assert plan.local_bytes == len(NEW) - sum(end - start for start, end in fetched)
    assert plan.saves_more_than_half


def test_a_cut_within_a_stretch_or_a_chunk_goes_on_from_there(plan):
    assert assemble(plan, most=1000)[0] == NEW
    ends = list(itertools.accumulate(step.length for step in plan.steps))
    for have in (1, ends[0] - 1, ends[0], ends[0] + 1, len(NEW) - 1):
        data, _ = Assembly(plan).following(have)
        assert not data or NEW[have:].startswith(data)


@pytest.mark.parametrize(
    ("damage", "stretches"),
    [
        (lambda path: path.write_bytes(bytes([OLD[0] ^ 1]) + OLD[1:]), 2),
        (lambda path: path.write_bytes(OLD[:-1]), 2),
        (lambda path: path.write_bytes(bytes(len(OLD))), _STRIKES),
        (lambda path: path.unlink(), 1),
    ],
    ids=["altered", "shorter", "another", "gone"],
)
def test_a_file_that_changed_under_the_plan_is_fetched(plan, old, damage, stretches, caplog):
    damage(old)
    built, fetched = assemble(plan)
    assert built == NEW
    assert len(fetched) <= stretches
    assert "fetched" in caplog.text
    assert len(caplog.messages) <= _STRIKES


def test_nothing_in_common_saves_nothing(old):
    plan = LocalChunks([old]).plan(cut(hashlib.shake_256(b"other").digest(600_000)))
    assert (plan.local_bytes, plan.saves_more_than_half) == (0, False)


@pytest.mark.parametrize(("local", "worth"), [(49, False), (50, False), (51, True)])
def test_more_than_half_must_be_here(local, worth):
    steps = (Step(local, b"", 0, 0), Step(100 - local, b""))
    assert Plan(("x",), steps).saves_more_than_half is worth


def test_files_are_cut_once_and_only_as_far_as_needed(tmp_path, old):
    reads = []

    def watched(paths):
        for path in paths:
            reads.append(path.name)
            yield path

    (tmp_path / "second").write_bytes(NEW)
    local = LocalChunks(watched([old, tmp_path / "second"]))
    assert local.plan(cut(OLD)).local_bytes == len(OLD)
    assert reads == ["model.onnx"]
    assert local.plan(cut(NEW)).local_bytes == len(NEW)
    assert local.plan(cut(OLD)).local_bytes == len(OLD)
    assert reads == ["model.onnx", "second"]


def test_a_search_that_takes_too_long_uses_what_it_found(old, caplog):
    seconds = itertools.count()
    plan = LocalChunks([old], monotonic_s=lambda: float(next(seconds))).plan(cut(NEW))
    assert 0 < plan.local_bytes < len(OLD)
    assert "took" in caplog.text


def test_a_file_that_cannot_be_read_is_passed_over(tmp_path, old):
    assert LocalChunks([tmp_path / "absent", tmp_path, old]).plan(cut(OLD)).local_bytes == len(OLD)


def test_a_plan_survives_on_disk_and_a_damaged_one_is_none(plan):
    raw = write_plan(plan)
    assert read_plan(raw, len(NEW)) == plan
    assert read_plan(raw, len(NEW) + 1) == Plan()
    assert read_plan(raw[:-1], len(NEW)) == Plan()
    assert read_plan(b"", len(NEW)) == Plan()
    negative = Plan(("x",), (Step(-5, b""), Step(len(NEW) + 5, b"")))
    assert read_plan(write_plan(negative), len(NEW)) == Plan()


@pytest.mark.parametrize(
    "step", [Step(len(NEW), b"", 7, 0), Step(len(NEW), b"", -9, 0), Step(len(NEW), b"", 0, -1), Step(len(NEW), b"", 0, 10**15)]
)
def test_a_plan_that_points_nowhere_fetches(old, step):
    assert Assembly(Plan((str(old),), (step,))).following(0) == (b"", len(NEW))


def test_the_serving_versions_files_come_first_and_links_count_once(tmp_path):
    models = tmp_path / "models"
    content = {"large": bytes(50_000), "small": bytes(20_000), "tiny": bytes(10)}
    for lane in ("digits", "digits+shadow", "digits-2"):
        for slot in ("a", "b"):
            (models / lane / slot).mkdir(parents=True)
            for name, data in content.items():
                (models / lane / slot / f"{name}").write_bytes(data)
        (models / lane / "active").symlink_to("b")
    (models / "digits" / "a" / "large").unlink()
    (models / "digits" / "a" / "large").hardlink_to(models / "digits" / "b" / "large")
    found = [str(path.relative_to(models)) for path in files_of_model(models, "digits")]
    shadow = [f"digits+shadow/{slot}/{name}" for slot in "ba" for name in ("large", "small")]
    assert found == ["digits/b/large", "digits/b/small", "digits/a/small", *shadow]
    assert files_of_model(models, "absent") == []
