"""Does each setting of isolation put committed versions and those on trial where it says?"""

import subprocess
import sys

import pytest

from runtime.contract.artifact import read_manifest
from runtime.serving.limits import ServingSettings
from runtime.serving.models.loading import loaders
from runtime.serving.models.repository import Repository


def places(settings, artifact):
    """Whether a version runs apart: opened for good, on trial, and once it has settled."""
    repository = Repository(**loaders(settings)._asdict())
    found = []
    try:
        for trial in (False, True):
            served = repository.open(artifact, trial=trial)
            repository.switch(served)
            found.append(served.is_apart)
        repository.settle(served.manifest.model)
        found.append(served.is_apart)
    finally:
        repository.close()
    return tuple(found)


@pytest.mark.parametrize(
    ("isolation", "expected"),
    [("never", (False, False, False)), ("probation", (False, True, False)), ("always", (True, True, True))],
)
def test_where_models_run(artifact, isolation, expected):
    assert places(ServingSettings(isolation=isolation), artifact) == expected


def test_elsewhere_than_on_linux_all_run_here_and_it_is_said(artifact, monkeypatch, caplog):
    monkeypatch.setattr(sys, "platform", "darwin")
    with caplog.at_level("WARNING", logger="runtime.serving.models.loading"):
        load, load_trial = loaders(ServingSettings())
    assert load_trial is None
    opened = load(read_manifest((artifact / "manifest.json").read_bytes()).value, artifact)
    opened.model.close()
    assert not opened.is_apart
    assert "needs Linux" in caplog.text


def test_the_usual_start_loads_nothing_of_isolation():

    script = "import sys, runtime.serving.models.loading, runtime.serving.models.repository; print('runtime.backends.isolated' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
