"""Does a build run what changed, nothing else, and never let the test split steer it?"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.contract.artifact import Evidence, read_manifest
from runtime.contract.canonical import EVIDENCE_LIMIT, read_json
from tests.toolchain.conftest import MODELS, Project, ran
from toolchain.errors import LimitError, UsageError
from toolchain.pipeline.build import Settings
from toolchain.pipeline.record import BuildResult

EPOCHS = "train.epochs=12"


def data_file(project: Project) -> Path:
    """A copy of the bundled data beside the recipe, for tests to change."""
    import sklearn

    path = project.folder / "data.csv"
    path.write_bytes((Path(sklearn.__file__).parent / "datasets" / "data" / "breast_cancer.csv").read_bytes())
    return path


def flip_label(path: Path, row: int = 20) -> None:
    """Turn one label around, the file's length unchanged."""
    lines = path.read_text().splitlines(keepends=True)
    values = lines[row].rstrip("\n").split(",")
    values[-1] = "1" if values[-1] == "0" else "0"
    lines[row] = ",".join(values) + "\n"
    path.write_text("".join(lines))


def make_unlike_its_class(path: Path, row: int) -> None:
    """Give an example the measurements of one of the other class. Its label stays, for the split is drawn by labels."""
    lines = path.read_text().splitlines()
    label = lines[row].rpartition(",")[2]
    other = next(line for line in lines[1:] if line.rpartition(",")[2] != label)
    lines[row] = f"{other.rpartition(',')[0]},{label}"
    path.write_text("\n".join(lines) + "\n")


def test_first_build_runs_everything(trained: tuple[Project, BuildResult]) -> None:
    _, result = trained
    assert all(stage.ran for stage in result.stages)
    target = result.targets[0]
    always = {"onnxruntime-float32", "openvino-float32", "onnxruntime-int8-7bit", "openvino-int8-7bit"}
    assert always <= {variant.name for variant in target.variants}  # rungs of a ladder are tried as they are needed
    assert result.data.sizes == {"train": 285, "validation": 114, "test": 170}
    assert result.training is not None
    assert len(result.training.history) == 12
    assert target.metrics[0].split == "test"
    assert target.metrics[0].n == 170
    assert target.metrics[0].low < target.metrics[0].value < target.metrics[0].high
    assert sum(map(sum, target.confusion)) == 170


def test_float_variants_reproduce_the_network(trained: tuple[Project, BuildResult]) -> None:
    _, result = trained
    for variant in result.targets[0].variants:
        if variant.precision == "float32":
            assert variant.parity.ok
            assert variant.parity.relative < 1e-5
            assert variant.parity.agreement == 1.0


def test_nothing_changed_runs_nothing(fork: Project, trained: tuple[Project, BuildResult]) -> None:
    again = fork.build(EPOCHS)
    assert ran(again) == set()
    assert all(stage.why == "nothing it depends on changed" for stage in again.stages)
    assert again.targets[0].manifest_sha256 == trained[1].targets[0].manifest_sha256
    assert (fork.out / "breast-cancer" / "1.0.0" / "x86-64-cpu" / "manifest.json").is_file()


def test_missing_output_is_brought_back(fork: Project) -> None:
    target = Path(fork.build(EPOCHS).targets[0].path)
    (target / "model.onnx").write_bytes(b"damaged")
    assert ran(fork.build(EPOCHS)) == set()
    manifest = read_manifest((target / "manifest.json").read_bytes()).value
    assert (target / "model.onnx").stat().st_size == manifest.file("model.onnx").size_bytes  # type: ignore[union-attr]


def test_latency_limit_reruns_only_choice_and_packing(fork: Project) -> None:
    assert ran(fork.build(EPOCHS, "target.max_latency_ms=3.5")) == {"choose", "pack"}


def test_quality_limit_reruns_only_choice_and_packing(fork: Project) -> None:
    assert ran(fork.build(EPOCHS, "metric.max_drop=0.05")) == {"choose", "pack"}


def test_new_version_only_packs_again(fork: Project) -> None:
    assert ran(fork.build(EPOCHS, "model.version=1.0.1")) == {"pack"}


def test_comment_in_recipe_runs_nothing(fork: Project) -> None:
    fork.recipe.write_text("# another thought\n" + fork.recipe.read_text())
    assert ran(fork.build(EPOCHS)) == set()


def test_comment_in_code_reads_the_data_again_but_trains_nothing(fork: Project) -> None:
    fork.edit("breast_cancer.py", "TEST, VALIDATION", "# shares\nTEST, VALIDATION")
    result = fork.build(EPOCHS)
    assert ran(result) == {"load data"}
    assert "code of the data source changed" in result.stages[0].why


def test_calibration_setting_leaves_training_alone(fork: Project) -> None:
    names = ran(fork.build(EPOCHS, "compress.calibration_rows=100"))
    assert "train" not in names
    assert "make onnxruntime-int8-7bit" in names


def test_one_changed_label_trains_again(fork: Project) -> None:
    path = data_file(fork)
    option = f"data.options.path={path}"
    assert ran(fork.build(EPOCHS, option)) == {"load data", "pack"}  # the same contents: only read again, and named in the recipe
    flip_label(path, row=_row_of(fork, path, "train"))
    result = fork.build(EPOCHS, option)
    assert {"load data", "train", "convert to onnx"} <= ran(result)
    assert next(stage.why for stage in result.stages if stage.name == "load data") == "file data.csv changed"


def test_label_changed_behind_size_and_time_is_found_by_rehash(fork: Project) -> None:
    path = data_file(fork)
    old = path.stat()
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns - 10**10))
    old = path.stat()
    option = f"data.options.path={path}"
    fork.build(EPOCHS, option)
    flip_label(path, row=_row_of(fork, path, "train"))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) == (old.st_size, old.st_mtime_ns, old.st_ino)
    assert "train" in ran(fork.build(EPOCHS, option, rehash=True))


def test_test_split_steers_nothing(fork: Project) -> None:
    """Another test example changes the final figure and the package; no weight, no variant and no choice."""
    path = data_file(fork)
    option = f"data.options.path={path}"
    before = fork.build(EPOCHS, option)
    make_unlike_its_class(path, row=_row_of(fork, path, "test"))
    after = fork.build(EPOCHS, option)
    assert ran(after) == {"load data", "test", "pack"}
    assert after.targets[0].metrics[0].value != before.targets[0].metrics[0].value
    assert after.targets[0].chosen == before.targets[0].chosen
    assert [variant.metrics for variant in after.targets[0].variants] == [
        variant.metrics for variant in before.targets[0].variants
    ]


def test_only_testing_and_packing_depend_on_the_test_split(trained: tuple[Project, BuildResult]) -> None:
    """The records of the cache say what each stage was given."""
    project, result = trained
    readers = set()
    for stage in result.stages:
        record = json.loads((project.cache_root / "stages" / stage.key / "record.json").read_text())
        given = " ".join(record["ingredients"])
        if "input held-out" in given or "input data" in given or "figures on test" in given:
            readers.add(stage.name.split()[0])
    assert readers == {"test", "pack"}


def _row_of(project: Project, path: Path, split: str) -> int:
    """A line of the data file that ends up in this split."""
    namespace: dict[str, object] = {}
    exec((project.folder / "breast_cancer.py").read_text(), namespace)
    inputs, _ = namespace["splits"](path)[split]  # type: ignore[operator]
    wanted = inputs[0]
    for number, line in enumerate(path.read_text().splitlines()):
        if number and np.array_equal(np.array(line.split(",")[:-1], dtype=np.float64).astype(np.float32), wanted):
            return number
    raise AssertionError("not found")


def test_same_inputs_and_evidence_give_the_same_manifest(fork: Project, make_project: Callable[[str], Project]) -> None:
    first = fork.build(EPOCHS)
    evidence = Path(first.targets[0].path) / "evidence.json"
    kept = fork.folder / "kept.json"
    kept.write_bytes(evidence.read_bytes())
    settings = Settings(evidence=kept)
    one = fork.build(EPOCHS, settings=settings)
    two = fork.build(EPOCHS, settings=settings)
    assert one.targets[0].chosen == first.targets[0].chosen
    assert one.targets[0].manifest_sha256 == two.targets[0].manifest_sha256 == first.targets[0].manifest_sha256
    assert ran(two) == set()


def test_evidence_without_a_needed_latency_is_refused(fork: Project) -> None:
    first = fork.build(EPOCHS)
    text = (Path(first.targets[0].path) / "evidence.json").read_text().replace("openvino-float32", "somebody-else")
    kept = fork.folder / "kept.json"
    kept.write_text(text)
    with pytest.raises(UsageError, match="holds no latency of openvino-float32"):
        fork.build(EPOCHS, settings=Settings(evidence=kept))


def test_evidence_names_the_manifest_and_every_variant(trained: tuple[Project, BuildResult]) -> None:
    _, result = trained
    target = result.targets[0]
    evidence = read_json((Path(target.path) / "evidence.json").read_bytes(), Evidence, EVIDENCE_LIMIT).value
    assert evidence.manifest_sha256 == target.manifest_sha256
    assert evidence.measured
    assert [variant.name for variant in evidence.variants] == [variant.name for variant in target.variants]
    assert all(variant.latency is not None for variant in evidence.variants)
    assert evidence.tracking == {"build": result.build}


def test_unmet_latency_limit_names_the_nearest_and_leaves_the_output_alone(fork: Project) -> None:
    with pytest.raises(LimitError, match=r"max_latency_ms = 1e-06; nearest is onnxruntime-float32 with p90 0\.\d+ ms"):
        fork.build(EPOCHS, "target.max_latency_ms=0.000001")
    assert [path.name for path in fork.out.iterdir()] == ["nearest"]


def test_failure_is_not_cached(fork: Project) -> None:
    for _ in range(2):
        with pytest.raises(LimitError):
            fork.build(EPOCHS, "target.max_latency_ms=0.000001")


def test_foreign_target_is_unmeasured_and_a_limit_on_it_is_refused(fork: Project) -> None:
    with pytest.raises(LimitError, match="--allow-unmeasured"):
        fork.build(EPOCHS, "target.profile=generic-arm64")
    result = fork.build(EPOCHS, "target.profile=generic-arm64", settings=Settings(allow_unmeasured=True))
    target = result.targets[0]
    assert not target.measured
    assert target.chosen == "onnxruntime-float32"
    assert all(variant.latency is None for variant in target.variants)
    assert any("unmeasured" in note for note in result.notes)
    manifest = read_manifest((Path(target.path) / "manifest.json").read_bytes()).value
    assert manifest.requires.arch == "aarch64"


def test_target_flag_selects_among_the_recipe_s(fork: Project) -> None:
    result = fork.build(EPOCHS, settings=Settings(targets=("generic-arm64",)))
    assert [target.target for target in result.targets] == ["generic-arm64"]


def test_rebuild_in_a_process_of_its_own_imports_no_engine(fork: Project) -> None:
    """What makes a build with nothing to do fast."""
    fork.build(EPOCHS)
    program = (
        "import sys\nfrom toolchain.cli import main\n"
        f"sys.argv = ['toolchain', 'build', {str(fork.recipe)!r}, '--out', {str(fork.out)!r}, '--set', {EPOCHS!r}, '--explain']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    status = stop.code\n"
        "print(status, sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    environment = {**os.environ, "EDGEWRIGHT_CACHE": str(fork.cache_root)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    last = done.stdout.splitlines()[-1]
    assert last.startswith("0 ")
    assert "nothing changed" in done.stdout
    assert done.stderr.count("nothing it depends on changed") == len(fork.build(EPOCHS).stages)
    for heavy in ("torch", "onnx", "onnxruntime", "openvino", "sklearn", "mlflow", "numpy", "nncf"):
        assert f"'{heavy}'" not in last


def test_digits_reaches_the_stated_accuracy(make_project: Callable[[str], Project]) -> None:
    """At the committed seed, by the float model."""
    result = make_project("digits").build("compress.methods=[]")
    accuracy = result.targets[0].metrics[0]
    assert accuracy.value >= 0.975
    assert accuracy.n == 449
    assert len((MODELS / "digits" / "recipe.toml").read_text().splitlines()) <= 25
    assert all(variant.parity.agreement == 1.0 for variant in result.targets[0].variants if variant.precision == "float32")


@pytest.mark.slow
def test_digits_with_every_candidate_keeps_the_metric_and_is_faster(make_project: Callable[[str], Project]) -> None:
    """Pruned, taught, quantized: what is chosen loses at most a point of accuracy, and is surely faster than float."""
    target = make_project("digits").build().targets[0]
    assert {variant.form for variant in target.variants} == {"base", "pruned50"}
    assert target.drop.value <= 0.01
    chosen = next(variant for variant in target.variants if variant.name == target.chosen)
    assert chosen.latency is not None
    assert chosen.latency.ratio_low > 1


def test_digits_can_be_relabelled_and_read_from_a_copy(make_project: Callable[[str], Project], tmp_path: Path) -> None:
    project = make_project("digits")
    namespace: dict[str, object] = {"__name__": "digits"}
    exec((project.folder / "digits.py").read_text(), namespace)
    splits, bundled = namespace["splits"], namespace["bundled_file"]
    copy = tmp_path / "digits.csv"
    copy.write_bytes(gzip.decompress(bundled().read_bytes()))  # type: ignore[operator]
    plain, mapped = splits(), splits(copy, {"7": 1})  # type: ignore[operator]
    for name in ("train", "validation", "test"):
        assert np.array_equal(plain[name][0], mapped[name][0])
        assert plain[name][0].dtype == np.float32
        assert plain[name][0].shape[1:] == (1, 32, 32)
        assert not (mapped[name][1] == 7).any()
        changed = plain[name][1] != mapped[name][1]
        assert np.array_equal(changed, plain[name][1] == 7)
