"""Does the version that a trial replaced answer as soon as the trial breaks, and leave once it is committed?"""

import numpy as np
import pytest

from runtime.backends.fallback import open_engine
from runtime.errors import EngineCrashedError, EngineHungError, InferenceError
from runtime.serving.models.repository import Repository
from tests.support.artifacts import FEATURES, scores, write_artifact

ROWS = {"input": np.random.default_rng(3).normal(size=(2, FEATURES)).astype(np.float32)}


class Breaking:
    """A model that works until it is told how to break; as a process of its own would."""

    def __init__(self, model):
        self.inputs, self.outputs = model.inputs, model.outputs
        self._model = model
        self.error = None
        self.is_closed = False

    def infer(self, inputs):
        if self.error is not None:
            raise self.error
        return self._model.infer(inputs)

    def close(self):
        self.is_closed = True
        self._model.close()


class Bench:
    """A repository with 1.0.0 committed and 2.0.0 on trial. here, apart: the models opened each way."""

    def __init__(self, tmp_path):
        self.here, self.apart, self.told = [], [], []
        self.repository = Repository(load=self._opening(self.here), load_trial=self._opening(self.apart))
        self.repository.fell_back = lambda broken, now: self.told.append((broken.manifest.version, now.manifest.version))
        for version, scale in (("1.0.0", 1.0), ("2.0.0", 2.0)):
            write_artifact(tmp_path / version, version=version, scale=scale)
            self.repository.switch(self.repository.open(tmp_path / version, trial=version == "2.0.0"))

    def _opening(self, models):
        def load(manifest, directory):
            opened = open_engine(manifest, directory)
            models.append(Breaking(opened.model))
            return opened._replace(model=models[-1])

        return load

    def version(self):
        """Which one answers, checked by what it says."""
        served, outputs = self.repository.infer("tiny", ROWS)
        scale = {"1.0.0": 1.0, "2.0.0": 2.0}[served.manifest.version]
        np.testing.assert_allclose(outputs["output"], scores(ROWS["input"], scale), rtol=1e-4, atol=1e-5)
        return served.manifest.version


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.repository.close()
    assert all(model.is_closed for model in (*bench.here, *bench.apart))


@pytest.mark.parametrize("error", [EngineCrashedError("as if"), EngineHungError("as if")])
def test_the_request_that_meets_the_end_is_answered_by_the_version_before(bench, error):
    assert bench.version() == "2.0.0"
    bench.apart[0].error = error
    assert bench.version() == "1.0.0"
    assert bench.told == [("2.0.0", "1.0.0")]
    assert bench.apart[0].is_closed
    assert bench.repository.health("tiny").failure == f"{error.code}: as if"  # of the update under way
    assert bench.repository.get("tiny").failure == ""
    assert bench.version() == "1.0.0"


def test_who_asks_for_the_broken_version_by_name_is_told(bench):
    bench.apart[0].error = EngineCrashedError("as if")
    with pytest.raises(EngineCrashedError):
        bench.repository.infer("tiny", ROWS, "2.0.0")
    assert bench.version() == "1.0.0"


def test_an_error_of_the_engine_s_own_changes_nothing(bench):
    bench.apart[0].error = InferenceError("as if")
    with pytest.raises(InferenceError):
        bench.version()
    assert bench.told == []
    bench.apart[0].error = None
    assert bench.version() == "2.0.0"


def test_nobody_stands_by_once_it_is_committed(bench):
    bench.repository.settle("tiny")
    assert bench.here[0].is_closed
    assert bench.apart[0].is_closed
    bench.here[1].error = EngineCrashedError("as if")
    with pytest.raises(EngineCrashedError):
        bench.version()
    assert bench.repository.health("tiny").failure == "engine.crashed: as if"


def test_a_rollback_for_another_reason_takes_its_place(bench, tmp_path):
    bench.repository.switch(bench.repository.open(tmp_path / "1.0.0"))
    assert bench.here[0].is_closed  # opened anew, as after a restart
    assert bench.version() == "1.0.0"
    assert bench.repository.health("tiny").failure == ""


def test_a_model_that_is_retired_leaves_nothing_behind(bench):
    bench.repository.retire("tiny")
    assert bench.here[0].is_closed
    assert bench.apart[0].is_closed
