"""Does a batch run answer every row once, in every form of source and result, and turn bad rows away with the reason?"""

import json
import wave

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from runtime.batch import run as module
from runtime.batch.parquet import ParquetSource
from runtime.errors import BatchError, RequestError
from tests.runtime.batch.conftest import COLOURS
from tests.support.artifacts import scores


@pytest.fixture
def sources(rows, tmp_path):
    """The same rows in each form a source may have."""
    np.save(tmp_path / "in.npy", rows)
    np.savez(tmp_path / "in.npz", input=rows)
    np.savez_compressed(tmp_path / "small.npz", input=rows.astype(np.float64))
    table = pa.table({"input": pa.FixedSizeListArray.from_arrays(rows.reshape(-1), 4), "other": np.arange(len(rows))})
    pq.write_table(table, tmp_path / "lists.parquet", row_group_size=17)
    pq.write_table(pa.table({name: rows[:, i] for i, name in enumerate("abcd")}), tmp_path / "columns.parquet", row_group_size=11)
    (tmp_path / "folder").mkdir()
    for index, row in enumerate(rows):
        np.save(tmp_path / "folder" / f"{index:03}.npy", row)
    return tmp_path


def read(path):
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return {name: np.array(table.column(name).to_pylist()) for name in table.column_names}
    if path.is_dir():
        parts = [np.load(part) for part in sorted(path.iterdir())]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0].files}
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize("source", ["in.npy", "in.npz", "small.npz", "lists.parquet", "columns.parquet", "folder"])
@pytest.mark.parametrize("out", ["out.npz", "out.parquet", "out"])
def test_every_row_is_answered_once_and_in_order(batch, sources, rows, source, out):
    summary = batch(source, out)
    found = read(sources / out)
    assert found["row"].tolist() == list(range(50))
    np.testing.assert_allclose(found["output"], scores(rows, 1), rtol=1e-5)
    assert ("file" in found) == (source == "folder")
    assert {name: summary[name] for name in ("rows", "failed", "resumed", "rejects")} == {
        "rows": 50, "failed": 0, "resumed": 0, "rejects": "",
    }  # fmt: skip
    assert summary["rows_per_s"] > 0
    left = {path.name for path in sources.iterdir() if path.name.startswith("out")}
    assert left == {out, f"{out}.job.json"}


def test_bad_rows_are_rejected_with_the_reason_and_the_rest_goes_on(batch, tmp_path, rows):
    lists = [row.tolist() for row in rows]
    lists[3], lists[20], lists[21] = None, [1.0], [1.0, None, 2.0, 3.0]
    pq.write_table(pa.table({"input": pa.array(lists, pa.list_(pa.float32()))}), tmp_path / "in.parquet")
    summary = batch("in.parquet", "out.npz")
    assert (summary["rows"], summary["failed"]) == (50, 3)
    lines = [json.loads(line) for line in (tmp_path / "out.npz.rejects.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [3, 20, 21]
    assert lines[0]["reason"] == "nothing in column 'input'"
    assert lines[1]["reason"] == "input 'input' takes rows of shape [4], not [1]"
    found = read(tmp_path / "out.npz")
    kept = [row for row in range(50) if row not in (3, 20, 21)]
    assert found["row"].tolist() == kept
    np.testing.assert_allclose(found["output"], scores(rows[kept], 1), rtol=1e-5)
    with pytest.raises(BatchError, match=r"row 3: nothing in column 'input' \(--strict"):
        batch("in.parquet", "strict.npz", strict=True)


def test_files_that_cannot_be_read_are_bad_rows_by_name(batch, sources):
    (sources / "folder" / "004.npy").write_bytes(b"\x93NUMPY")
    (sources / "folder" / "notes.txt").write_text("hello")
    (sources / "folder" / ".hidden").write_text("hello")
    assert batch("folder", "out.npz")["failed"] == 2
    lines = [json.loads(line) for line in (sources / "out.npz.rejects.jsonl").read_text().splitlines()]
    assert [(line["row"], line["file"]) for line in lines] == [(4, "004.npy"), (50, "notes.txt")]
    assert lines[1]["reason"].startswith("notes.txt is none of .bmp")


def test_pictures_are_prepared_and_decoded_by_the_manifest_s_steps(batch, tmp_path, colours):
    (tmp_path / "photos").mkdir()
    for index, colour in enumerate(((200, 10, 10), (10, 10, 200), (10, 200, 10))):
        Image.new("RGB", (5 + index, 4), colour).save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / "photos" / "3.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    with pytest.raises(RequestError, match="add --raw"):
        batch("photos", "out.parquet", colours)
    assert batch("photos", "out.parquet", colours, raw=True)["failed"] == 1
    found = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert found["label"] == ["red", "blue", "green"]
    assert found["class"] == [COLOURS.index(label) for label in found["label"]]
    assert found["file"] == ["0.png", "1.png", "2.png"]
    raw = [(tmp_path / "photos" / name).read_bytes() for name in ("2.png", "3.jpg", "0.png")]
    pq.write_table(pa.table({"image": [{"bytes": one, "path": "x"} for one in [*raw, None]]}), tmp_path / "in.parquet")
    assert batch("in.parquet", "again.parquet", colours, raw=True)["failed"] == 2
    assert pq.read_table(tmp_path / "again.parquet").to_pydict()["label"] == ["green", "red"]


def test_a_sound_of_another_rate_or_form_is_a_bad_row(tmp_path):
    from runtime.batch.examples import read_example

    def write(name, rate, channels=1, width=2):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setframerate(rate)
            file.setnchannels(channels)
            file.setsampwidth(width)
            file.writeframes(bytes(range(8 * width)))
        return tmp_path / name

    assert read_example(write("a.wav", 16_000), 16_000).tolist() == np.arange(16, dtype=np.uint8).view("<i2").tolist()
    assert read_example(write("b.wav", 8000, width=1)).tolist() == [-128, -127, -126, -125, -124, -123, -122, -121]
    with pytest.raises(BatchError, match="8000 samples a second, the model takes 16000"):
        read_example(write("c.wav", 8000), 16_000)
    with pytest.raises(BatchError, match="2 channels of 16 bits"):
        read_example(write("d.wav", 8000, channels=2))


def test_drift_is_counted_over_all_rows(batch, sources, rows):
    drift = batch("in.npy", "out.npz", drift=True)["drift"]
    assert (drift["rows"], drift["enough_rows"], len(drift["streams"])) == (50, False, 4)
    np.save(sources / "moved.npy", np.tile(rows, (6, 1)) + np.array([0, 0, 3, 0], np.float32))
    drift = batch("moved.npy", "moved.npz", drift=True)["drift"]
    assert drift["enough_rows"]
    assert drift["streams"][0]["stream"] == "c"
    assert drift["streams"][0]["drifted"]
    assert drift["streams"][0]["distance"] > 2 * drift["streams"][1]["distance"]


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("nowhere.npy", "out.npz", "there is no such file or folder"),
        ("in.npy", "out.csv", "a result is an .npz or .parquet file, or a folder"),
        ("in.npy", "missing/out.npz", "there is no folder"),
        ("in.csv", "out.npz", "a batch is an .npy, .npz or .parquet file, or a folder"),
        ("empty", "out.npz", "there is no file in this folder"),
        ("empty.npy", "out.npz", "has no rows"),
        ("other.npz", "out.npz", "needs the input 'input'; the source has 'x', 'y'"),
        ("in.npy", "taken.npz", "is there already; remove it, or name another"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(batch, sources, source, out, message):
    (sources / "empty").mkdir()
    np.save(sources / "empty.npy", np.empty((0, 4), np.float32))
    np.savez(sources / "other.npz", x=np.zeros(3), y=np.zeros(3))
    for name in ("in.csv", "taken.npz"):
        (sources / name).write_text("x")
    with pytest.raises(RequestError, match=message):
        batch(source, out)
    assert not (sources / out).exists() or out == "taken.npz"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("in.npz", b"PK", "not a zip file"), ("in.npy", b"\x93NUMPY", "in.npy: array: "), ("in.parquet", b"PAR1", "in.parquet")],
)
def test_damaged_files_are_named(batch, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BatchError, match=message):
        batch(name, "out.npz")


def test_archives_that_lie_about_their_rows_are_refused(batch, tmp_path, rows):
    np.savez(tmp_path / "uneven.npz", a=rows, b=rows[:3])
    with pytest.raises(BatchError, match=r"have \[3, 50\] rows"):
        batch("uneven.npz", "out.npz")
    np.savez(tmp_path / "objects.npz", input=np.array([None, 1]))
    with pytest.raises(BatchError, match="rows of numbers in C order"):
        batch("objects.npz", "out.npz")


def test_where_no_row_fits_there_is_no_result_but_a_reason(batch, tmp_path):
    np.save(tmp_path / "in.npy", np.zeros((3, 9), np.float32))
    with pytest.raises(BatchError, match=r"none of the 3 rows could be answered .*takes rows of shape \[4\], not \[9\]"):
        batch("in.npy", "out.npz")
    assert len((tmp_path / "out.npz.rejects.jsonl").read_text().splitlines()) == 3
    assert not (tmp_path / "out.npz").exists()


def test_parquet_is_read_in_chunks_of_the_size_asked_from_any_row(sources, rows):
    for first in (0, 8, 11, 40):
        chunks = list(ParquetSource(sources / "columns.parquet").read(first, 8))
        assert [chunk.first for chunk in chunks] == list(range(first, 50, 8))
        assert all(chunk.count == 8 for chunk in chunks[:-1])
        np.testing.assert_array_equal(np.concatenate([chunk.columns["a"] for chunk in chunks]), rows[first:, 0])


def test_memory_is_bounded_by_the_chunk_not_by_the_source(artifact):
    manifest = module.open_artifact(artifact).manifest
    assert module._rows_per_batch(manifest) == 4096, "16 bytes a row: the number of rows is the bound"
