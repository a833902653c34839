"""Small projects to build, and one trained build shared by every test that only looks at it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from toolchain.benchmark import profile, timing
from toolchain.cli import main
from toolchain.pipeline.build import Settings
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.record import BuildResult
from toolchain.pipeline.result import run_build

MODELS = Path(__file__).parents[2] / "models"


class Project:
    """A copy of a recipe's folder with its own cache and output, built in this process."""

    def __init__(self, root: Path, model: str) -> None:
        self.folder = root / "project"
        shutil.copytree(MODELS / model, self.folder, ignore=shutil.ignore_patterns("out", "__pycache__"))
        self.recipe = self.folder / "recipe.toml"
        self.cache_root = root / "cache"
        self.out = root / "out"
        self.notes: list[str] = []

    def build(self, *changes: str, rehash: bool = False, settings: Settings | None = None) -> BuildResult:
        progress = Silent()
        try:
            return run_build(
                self.recipe,
                progress,
                cache=StageCache(self.cache_root, rehash=rehash),
                changes=changes,
                out=self.out,
                settings=settings,
            )
        finally:
            self.notes = progress.notes

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def ran(result: BuildResult) -> set[str]:
    """Names of the stages that ran, shortened to their first words: "train", "measure", ..."""
    return {stage.name.removesuffix(" x86-64-cpu") for stage in result.stages if stage.ran}


@pytest.fixture(scope="session", autouse=True)
def quick_and_untracked() -> Iterator[None]:
    """Latency blocks of a fraction of their length and no process per model for its memory, for these tests judge neither;
    no tracking store touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "BLOCK_NS", 100_000)
        patch.setattr(timing, "BLOCKS", 10)
        patch.setattr(timing, "ROUNDS", 2)
        patch.setattr(profile, "peak_bytes", lambda *_: None)
        patch.setenv("EDGEWRIGHT_TRACKING", "off")
        yield


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[[str], Project]:
    return lambda model: Project(tmp_path, model)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, BuildResult]:
    """breast_cancer, built once with few epochs; not to be changed."""
    project = Project(tmp_path_factory.mktemp("trained"), "breast_cancer")
    return project, project.build("train.epochs=12")


@pytest.fixture
def fork(trained: tuple[Project, BuildResult], tmp_path: Path) -> Project:
    """The trained project with its full cache, copied, for tests that change something. Its data has been read in its new place."""
    original, _ = trained
    project = Project(tmp_path, "breast_cancer")
    shutil.copytree(original.cache_root, project.cache_root)
    project.build("train.epochs=12")
    shutil.rmtree(project.out)
    return project


class Ended(NamedTuple):
    """A command that ran in this process, as the shell would see it."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return Ended(int(ended.value.code or 0), shown.out, shown.err)

    return call
