"""Does a client's wish to unload or load a model change what serves, and only that, and never under an update?"""

import numpy as np
import pytest

from runtime.contract.deployment import DeploymentState, Outcome
from runtime.errors import ModelNotFoundError, OverloadedError
from runtime.reload import stored_models
from runtime.serving.models.repository import Repository
from runtime.update.machine import Job
from runtime.update.slots import Slots
from tests.support.artifacts import FEATURES, write_artifact
from tests.support.devices import active_slot

ROWS = {"input": np.ones((1, FEATURES), np.float32)}


class Jobs:
    """Stands in for state.db: a job per lane."""

    def __init__(self):
        self.held = {}

    def jobs(self):
        return self.held


@pytest.fixture
def device(tmp_path):
    """(what a client may do, the repository, the jobs) of a device with `tiny` in its active slot, not serving yet."""
    artifact = write_artifact(active_slot(tmp_path, "tiny"))
    repository, jobs = Repository(), Jobs()
    yield stored_models(Slots(tmp_path), jobs, repository), repository, jobs, artifact
    repository.close()


def test_a_model_is_loaded_from_its_active_slot_and_unloaded(device):
    stored, repository, _, artifact = device
    assert stored.models() == ("tiny",)
    stored.load("tiny")
    assert repository.artifact("tiny") == artifact
    assert repository.infer("tiny", ROWS)[1]["output"].shape == (1, 3)
    served = repository.get("tiny")
    stored.load("tiny")
    assert repository.get("tiny") is served, "what serves is left alone"
    stored.unload("tiny")
    stored.unload("tiny")
    assert repository.models() == ()
    assert stored.models() == ("tiny",), "it stays on the device"


@pytest.mark.parametrize("name", ["nothing", "..", "../tiny", "", "tiny/a", "t\0"])
def test_only_models_on_the_device_are_meant(device, name):
    stored, _, _, _ = device
    for action in (stored.load, stored.unload):
        with pytest.raises(ModelNotFoundError, match="no version of"):
            action(name)


@pytest.mark.parametrize("state", [state for state in DeploymentState if state is not DeploymentState.IDLE])
def test_an_update_under_way_is_not_disturbed(device, state):
    stored, repository, jobs, artifact = device
    stored.load("tiny")
    jobs.held["tiny"] = Job(model="tiny", artifact=artifact, slot="a", state=state)
    for action in (stored.load, stored.unload):
        with pytest.raises(OverloadedError, match="an update of tiny is under way"):
            action("tiny")
    assert repository.artifact("tiny") == artifact
    jobs.held["tiny"] = Job(model="tiny", artifact=artifact, slot="a", outcome=Outcome.SUCCEEDED)
    stored.unload("tiny")
    assert repository.artifact("tiny") is None
