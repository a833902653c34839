"""Do the client's types and the service's models name the same fields?"""

from typing import get_type_hints

import pytest
from pydantic import BaseModel

from fleet.api import models, oversight, releases, trust
from fleet.changes import Change
from fleet.client import documents

PAIRS: list[tuple[type, type[BaseModel]]] = [
    (documents.Artifact, releases.ArtifactView),
    (documents.ReleaseSummary, releases.ReleaseView),
    (documents.Release, releases.ReleaseDetail),
    (documents.Installed, models.InstalledView),
    (documents.Wanted, models.WantedView),
    (documents.Device, models.DeviceView),
    (documents.Job, models.JobView),
    (documents.Verdict, models.VerdictView),
    (documents.RolloutSummary, models.RolloutSummary),
    (documents.Rollout, models.RolloutView),
    (documents.Window, models.WindowView),
    (documents.Event, models.EventView),
    (documents.ModelDrift, models.DriftView),
    (documents.Drift, models.DeviceDrift),
    (documents.Alert, models.AlertView),
    (documents.AuditEntry, models.AuditView),
    (documents.Health, oversight.HealthAnswer),
    (documents.Token, models.TokenView),
    (documents.NewToken, models.TokenAnswer),
    (documents.TrustUpdate, trust.TrustAnswer),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[ours.__name__ for ours, _ in PAIRS])
def test_the_same_fields_stand_on_both_sides(ours: type, theirs: type[BaseModel]) -> None:
    assert set(get_type_hints(ours)) == set(theirs.model_fields)


def test_notices_of_the_stream_have_the_same_fields() -> None:
    assert set(get_type_hints(documents.Change)) == set(Change._fields)
