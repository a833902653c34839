"""A small project to search over: breast_cancer with few epochs, the float model in one engine, so that a trial takes a second."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toolchain.conftest import Project

QUICK = ("train.epochs=2", "compress.methods=[]", 'target.engines=["onnxruntime"]')

TUNE = """
[tune]
trials = 4
[tune.space]
"train.batch_size" = { choices = [16, 32, 64] }
"model.options.hidden" = { low = 8, high = 32, step = 8 }
"""


def with_tune(project: Project, text: str = TUNE) -> Project:
    """Add a [tune] to the project's recipe."""
    project.recipe.write_text(project.recipe.read_text() + text)
    return project


@pytest.fixture
def tune_project(make_project: Callable[[str], Project]) -> Project:
    return with_tune(make_project("breast_cancer"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose cache the tests of one module share, so that equal parts are made once."""
    return with_tune(Project(Path(tmp_path_factory.mktemp("tune")), "breast_cancer"))
