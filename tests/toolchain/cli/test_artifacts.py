"""Do inspect, compare and bench tell the truth about artifacts, and refuse damaged ones?"""

import json
import shutil
from pathlib import Path

import pytest

from tests.toolchain.conftest import Project, Run
from tests.toolchain.package.conftest import make_artifact
from toolchain.pipeline.record import BuildResult

Trained = tuple[Project, BuildResult]


def test_inspect_shows_figures_files_and_lineage(run: Run, trained: Trained) -> None:
    _, result = trained
    target = result.targets[0]
    ended = run("inspect", result.out)
    assert ended.status == 0
    assert f"{result.recipe.model.name} {result.recipe.model.version} for {target.target}: {target.chosen}" in ended.out
    for shown in (target.manifest_sha256, "test accuracy", "golden.npz", "reference.bin", "lock"):
        assert shown in ended.out


def test_inspect_as_json_holds_the_documents_themselves(run: Run, trained: Trained) -> None:
    _, result = trained
    (found,) = json.loads(run("inspect", result.targets[0].path, "--json").out)
    assert found["sha256"] == result.targets[0].manifest_sha256
    assert found["manifest"]["model"] == result.recipe.model.name
    assert found["evidence"]["manifest_sha256"] == found["sha256"]


@pytest.mark.parametrize("command", [("inspect",), ("bench",), ("compare", "again")])
def test_a_damaged_artifact_is_refused(run: Run, trained: Trained, tmp_path: Path, command: tuple[str, ...]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained[1].targets[0].path, copy)
    model = next(copy.glob("model.*"))
    raw = bytearray(model.read_bytes())
    raw[len(raw) // 2] ^= 1
    model.write_bytes(raw)
    ended = run(command[0], copy, *([copy] if len(command) > 1 else []))
    assert ended.status == 6
    assert model.name in ended.err
    assert ended.out == ""


def test_nothing_to_inspect_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    ended = run("inspect", tmp_path)
    assert ended.status == 2
    assert "toolchain build" in ended.err
    assert ended.err.count("\n") == 1


def test_compare_finds_nothing_where_nothing_differs(run: Run, trained: Trained) -> None:
    ended = run("compare", trained[1].out, trained[1].out)
    assert ended.status == 0
    assert "no difference" in ended.out


def test_compare_names_what_changed_and_warns_of_new_tensors(run: Run, tmp_path: Path) -> None:
    before = make_artifact(tmp_path)
    after = make_artifact(tmp_path, version="1.1.0", content=b"a larger model")
    manifest = json.loads((after / "manifest.json").read_bytes())
    manifest["inputs"][0]["shape"] = [-1, 5]
    rewrite(after, manifest)
    ended = run("compare", before, after)
    assert ended.status == 0
    assert "digits 1.0.0" in ended.out
    assert "warning: the input tensors differ" in ended.out
    assert "+75.0 %" in ended.out  # 12 bytes became 21


def test_compare_shows_figures_with_intervals_and_writes_a_page(run: Run, trained: Trained, tmp_path: Path) -> None:
    _, result = trained
    second = tmp_path / "9.9.9" / result.targets[0].target
    shutil.copytree(result.targets[0].path, second)
    manifest = json.loads((second / "manifest.json").read_bytes())
    manifest["version"] = "9.9.9"
    manifest["lineage"]["recipe"] = "0" * 64
    rewrite(second, manifest)
    page = tmp_path / "difference.html"
    ended = run("compare", result.targets[0].path, second, "--html", page)
    assert ended.status == 0, ended.err
    assert f"wrote {page}" in ended.err
    assert "note: which keys of the recipe changed is not known" in ended.out
    row = next(line for line in ended.out.splitlines() if line.startswith("test accuracy"))
    assert " to " in row
    assert row.endswith("same")
    assert "9.9.9" in page.read_text()
    (found,) = json.loads(run("compare", result.targets[0].path, second, "--json").out)
    assert {figure["name"] for figure in found["figures"]} >= {"test accuracy", "model file", "payload"}


def test_a_page_that_cannot_be_written_is_one_line(run: Run, trained: Trained, tmp_path: Path) -> None:
    ended = run("compare", trained[1].out, trained[1].out, "--html", tmp_path / "absent" / "page.html")
    assert ended.status == 2
    assert ended.err.count("\n") == 1


def test_compare_needs_a_target_in_common(run: Run, tmp_path: Path) -> None:
    ended = run("compare", make_artifact(tmp_path), make_artifact(tmp_path, version="1.1.0", target="other-cpu"))
    assert ended.status == 2
    assert "no target in common" in ended.err


def test_bench_measures_artifacts_beside_one_another(run: Run, trained: Trained, tmp_path: Path) -> None:
    _, result = trained
    second = tmp_path / "1.0.1"
    shutil.copytree(result.targets[0].path, second)
    manifest = json.loads((second / "manifest.json").read_bytes())
    manifest["version"] = "9.9.9"
    rewrite(second, manifest)
    ended = run("bench", result.targets[0].path, second, "--blocks", 4, "--json")
    assert ended.status == 0, ended.err
    first, other = json.loads(ended.out)
    assert (first["latency"]["ratio"], first["latency"]["threads"]) == (1.0, 1)
    assert other["name"].endswith(f"9.9.9 {result.targets[0].target}")
    assert other["latency"]["p50_ns"] > 0
    assert run("bench", second, "--blocks", 4).out.splitlines()[1].startswith(other["name"])


def test_bench_without_golden_inputs_is_refused(run: Run, tmp_path: Path) -> None:
    ended = run("bench", make_artifact(tmp_path))
    assert ended.status in (4, 6)  # its stand-in for a model file does not even open
    assert ended.err.count("\n") == 1


def rewrite(artifact: Path, manifest: dict[str, object]) -> None:
    """Give an artifact another manifest, and evidence that speaks of it."""
    from runtime.contract.canonical import sha256_hex

    raw = json.dumps(manifest, sort_keys=True).encode()
    (artifact / "manifest.json").write_bytes(raw)
    evidence = json.loads((artifact / "evidence.json").read_bytes())
    evidence["manifest_sha256"] = sha256_hex(raw)
    (artifact / "evidence.json").write_text(json.dumps(evidence))
