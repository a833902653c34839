"""Does a data source run exactly when something it reads has changed?"""

import os
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.data.load import load_data
from toolchain.errors import DataError, RecipeError
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.record import StageRun
from toolchain.pipeline.stage import Runner
from toolchain.recipe import parse_recipe

SOURCE = """
import json
from pathlib import Path
import numpy as np
from helper import scale

HERE = Path(__file__).parent

def splits(factor=1, **rest):
    rows = json.loads((HERE / "rows.json").read_text())
    values = scale(np.array(rows, dtype=np.float32)) * factor
    part = (values, np.arange(len(values)) % 2)
    return {"train": part, "validation": part, "test": part}
"""
HELPER = "def scale(values):\n    return values * 2\n"


class Folder:
    """A project folder whose source is loaded again and again, always with the same cache."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.options: dict[str, object] = {}
        self.write("source.py", SOURCE)
        self.write("helper.py", HELPER)
        self.write("rows.json", "[[1, 2], [3, 4], [5, 6]]")

    def write(self, name: str, text: str) -> Path:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))
        return target

    def source(self, body: str) -> None:
        """Replace the source by these lines inside `splits`, which return the rows to use."""
        lines = textwrap.indent(textwrap.dedent(body), "    ")
        tail = "    part = (np.array(values, dtype=np.float32), np.arange(len(values)) % 2)\n"
        tail += '    return {"train": part, "validation": part, "test": part}\n'
        self.write(
            "source.py",
            f"import numpy as np\nfrom pathlib import Path\nHERE = Path(__file__).parent\ndef splits():\n{lines}\n{tail}",
        )

    def load(self, *, rehash: bool = False, function: str = "splits") -> StageRun:
        cache = StageCache(self.path / "cache", rehash=rehash)
        document = {
            "model": {"name": "m", "version": "1.0.0", "network": "a.py:b"},
            "data": {"source": f"source.py:{function}", "options": self.options},
        }
        runner = Runner(cache, Silent(), "project")
        load_data(runner, parse_recipe(document, "recipe.toml"), self.path)
        cache.hashes.save()
        return runner.runs[0]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_second_time_nothing_runs(folder: Folder) -> None:
    assert folder.load().ran
    assert not folder.load().ran


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: f.write("rows.json", "[[1, 2], [3, 4], [5, 7]]"), "file rows.json changed"),
        (lambda f: f.write("helper.py", HELPER.replace("2", "3")), "code of the data source changed"),
        (lambda f: f.write("source.py", SOURCE + "# a comment\n"), "code of the data source changed"),
        (lambda f: f.options.update(factor=3), "options {} -> "),
    ],
)
def test_what_it_depends_on_makes_it_run(folder: Folder, change: Callable[[Folder], object], why: str) -> None:
    folder.load()
    change(folder)
    run = folder.load()
    assert run.ran
    assert why in run.why
    assert not folder.load().ran


def test_what_it_does_not_read_leaves_it_alone(folder: Folder) -> None:
    folder.load()
    folder.write("notes.txt", "nobody reads this")
    folder.write("other.py", "import helper")
    assert not folder.load().ran


def test_the_same_contents_at_another_time_leave_it_alone(folder: Folder) -> None:
    folder.load()
    os.utime(folder.path / "rows.json", (1, 1))
    assert not folder.load().ran


def test_going_back_finds_the_first_result(folder: Folder) -> None:
    folder.load()
    folder.write("rows.json", "[[9, 9], [3, 4]]")
    assert folder.load().ran
    folder.write("rows.json", "[[1, 2], [3, 4], [5, 6]]")
    assert not folder.load().ran


def test_edited_helper_of_the_same_size_and_time_is_executed_anew(folder: Folder) -> None:
    """Python's own bytecode cache would run the old code."""
    first = folder.load()
    path = folder.path / "helper.py"
    stat = path.stat()
    path.write_text(HELPER.replace("2", "7"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = folder.load()
    assert again.ran
    assert again.output != first.output


def test_a_module_imported_by_a_computed_name_counts(folder: Folder) -> None:
    folder.write("hidden.py", "FACTOR = 2\n")
    folder.source("""
        import importlib
        values = [[1.0 * importlib.import_module("hid" + "den").FACTOR], [2.0]]
    """)
    folder.load()
    assert not folder.load().ran
    folder.write("hidden.py", "FACTOR = 3\n")
    assert folder.load().ran


def test_a_package_beside_the_source_counts(folder: Folder) -> None:
    folder.write("parts/__init__.py", "")
    folder.write("parts/rows.py", "ROWS = [[1.0], [2.0]]\n")
    folder.source("from parts.rows import ROWS\nvalues = ROWS")
    folder.load()
    assert not folder.load().ran
    folder.write("parts/rows.py", "ROWS = [[1.0], [3.0]]\n")
    assert folder.load().ran


def test_a_new_file_in_a_listed_folder_counts(folder: Folder) -> None:
    folder.write("rows/a.txt", "1")
    folder.source("""values = [[float(path.read_text())] for path in sorted((HERE / "rows").iterdir())] + [[0.0]]""")
    folder.load()
    assert not folder.load().ran
    folder.write("rows/b.txt", "2")
    run = folder.load()
    assert run.ran
    assert "folder rows changed" in run.why


def test_a_file_that_was_missed_and_appears_counts(folder: Folder) -> None:
    folder.source("""
        try:
            extra = [[float((HERE / "extra.txt").read_text())]]
        except FileNotFoundError:
            extra = []
        values = [[1.0], [2.0], *extra]
    """)
    folder.load()
    assert not folder.load().ran
    folder.write("extra.txt", "3")
    assert folder.load().ran


def test_a_data_base_opened_through_sqlite_counts(folder: Folder) -> None:
    import sqlite3

    with sqlite3.connect(folder.path / "rows.sqlite") as base:
        base.execute("create table row (value real)")
        base.executemany("insert into row values (?)", [(1.0,), (2.0,)])
    base.close()
    folder.source("""
        import contextlib, sqlite3
        with contextlib.closing(sqlite3.connect(HERE / "rows.sqlite")) as base:
            values = [[value] for value, in base.execute("select value from row")]
    """)
    folder.load()
    assert not folder.load().ran
    with sqlite3.connect(folder.path / "rows.sqlite") as base:
        base.execute("update row set value = 5 where value = 2.0")
    base.close()
    assert folder.load().ran


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import subprocess\nvalues = [[float(subprocess.check_output(['echo', '1']))], [2.0]]", "it starts a process"),
        (
            "import contextlib, socket\nwith contextlib.suppress(OSError):\n"
            "    socket.create_connection(('127.0.0.1', 1), timeout=1)\nvalues = [[1.0], [2.0]]",
            "it opens a network connection",
        ),
    ],
)
def test_what_cannot_be_seen_makes_it_run_always_and_say_so(folder: Folder, body: str, reason: str) -> None:
    folder.source(body)
    folder.load()
    again = folder.load()
    assert again.ran
    assert reason in again.why
    assert "fingerprint()" in again.why


def test_a_declared_fingerprint_stands_for_what_cannot_be_seen(folder: Folder) -> None:
    folder.source("import subprocess\nvalues = [[float(subprocess.check_output(['echo', '1']))], [2.0]]")
    stamp = folder.write("stamp.txt", "1")
    text = (folder.path / "source.py").read_text()
    folder.write("source.py", f"{text}\ndef fingerprint():\n    return (HERE / 'stamp.txt').read_text()\n")
    folder.load()
    assert not folder.load().ran
    stamp.write_text("2")
    run = folder.load()
    assert run.ran
    assert "fingerprint of the data source changed" in run.why


def test_a_copied_project_reads_its_own_files(folder: Folder, tmp_path: Path) -> None:
    """Same code, same cache, other place: what the first one opened says nothing about the second."""
    folder.load()
    copy = tmp_path / "copy"
    copy.mkdir()
    other = Folder(copy)
    shutil.copytree(folder.path / "cache", copy / "cache")
    other.write("rows.json", "[[7, 7], [8, 8], [9, 9]]")
    assert other.load().ran


def test_a_relative_path_is_another_file_in_another_directory(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.source("values = [[float(Path('one.txt').read_text())], [2.0]]")
    for place, text in (("here", "1"), ("there", "5")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "one.txt").write_text(text)
    monkeypatch.chdir(tmp_path / "here")
    first = folder.load()
    assert not folder.load().ran
    monkeypatch.chdir(tmp_path / "there")
    second = folder.load()
    assert second.ran
    assert second.output != first.output


def test_a_lost_trace_is_a_miss(folder: Folder) -> None:
    folder.load()
    for path in (folder.path / "cache" / "traces").iterdir():
        path.unlink()
    assert folder.load().ran


def test_another_function_of_the_same_file_is_another_source(folder: Folder) -> None:
    """Both read the same file, so nothing but the callable's name tells them apart."""
    folder.write("source.py", SOURCE + "\ndef doubled():\n    return splits(factor=2)\n")
    first = folder.load()
    doubled = folder.load(function="doubled")
    assert doubled.output != first.output
    assert folder.load().output == first.output
    assert folder.load(function="doubled").output == doubled.output


def test_a_hundred_files_are_told_apart_by_folder(folder: Folder) -> None:
    for index in range(120):
        folder.write(f"rows/{index % 2}/{index}.txt", str(index))
    folder.source("""values = [[float(path.read_text())] for path in sorted((HERE / "rows").glob("*/*.txt"))]""")
    folder.load()
    assert not folder.load().ran
    folder.write("rows/1/17.txt", "5")
    assert folder.load().why == "file in 1 changed"
    zero, two = (folder.path / "rows" / "0" / f"{name}.txt" for name in (0, 2))
    both = zero.read_text(), two.read_text()
    two.write_text(both[0])
    zero.write_text(both[1])
    assert folder.load().why == "file in 0 changed"


def test_a_failing_source_is_named(folder: Folder) -> None:
    folder.write("source.py", "def splits():\n    raise ValueError('the sensor was off')\n")
    with pytest.raises(DataError, match=r"data\.source 'source\.py:splits': ValueError: the sensor was off"):
        folder.load()


def test_missing_data_is_named(folder: Folder) -> None:
    (folder.path / "rows.json").unlink()
    with pytest.raises(DataError, match=r"FileNotFoundError.*rows\.json"):
        folder.load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def split():\n    pass\n", r"has no callable 'splits'; it has split"),
        ("import nothing_of_this_name\n", "cannot be imported"),
        ("1 / 0\n", "fails on import: ZeroDivisionError"),
        ("def splits(:\n", "not valid Python"),
    ],
)
def test_a_source_that_cannot_be_called_is_the_recipe_s_fault(folder: Folder, text: str, message: str) -> None:
    folder.write("source.py", text)
    with pytest.raises(RecipeError, match=message):
        folder.load()


def test_a_source_file_that_is_not_there(folder: Folder) -> None:
    (folder.path / "source.py").unlink()
    with pytest.raises(RecipeError, match=r"data\.source: 'source\.py:splits' names source\.py, which is not in"):
        folder.load()
