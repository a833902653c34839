"""Who watches the windows for drift, and tells people?

A worker beside the scheduler: for every device and model with new windows it lets the domain judge them, keeps the
judgement, and opens or closes one alert per device and model. What it has judged is in the database, so that a restart
neither forgets nor repeats a window.
"""

import logging
from collections.abc import Callable

from fleet.changes import Changes
from fleet.domain.drift import Baseline, DriftState, judge, make_baseline
from fleet.errors import FleetError
from fleet.periodic import Periodic
from fleet.store.alerts import AlertRepository, new_alert
from fleet.store.database import Database
from fleet.store.drift import DriftRepository
from fleet.store.tables import Artifact
from fleet.store.telemetry import TelemetryRepository, read_stored
from runtime.contract.errors import ContractError
from runtime.contract.telemetry import read_reference

log = logging.getLogger(__name__)

TITLE_STREAMS = 5


class DriftWatch:
    def __init__(
        self,
        database: Database,
        changes: Changes,
        now_ms: Callable[[], int],
        read_blob: Callable[[str], bytes],
        every_ms: int,
    ) -> None:
        """read_blob: the bytes of a blob by its sha256; raises FleetError."""
        self._database = database
        self._changes = changes
        self._now_ms = now_ms
        self._read_blob = read_blob
        self._baselines: dict[str, Baseline | None] = {}
        self._seen_id = 0
        self._periodic = Periodic("drift", self.run_once, every_ms)

    async def start(self) -> None:
        self._periodic.start()

    async def stop(self) -> None:
        await self._periodic.stop()

    @property
    def failure(self) -> str:
        """Why the newest look failed, "" when it did not."""
        return self._periodic.failure

    def run_once(self) -> None:
        """Judge what came since the last time; everything not judged yet the first time."""
        with self._database.read() as session:
            watched, newest = DriftRepository(session).watched(self._seen_id)
        for device, artifact in watched:
            baseline = self._baseline(artifact)
            if baseline is not None:
                self._judge(device, artifact, baseline)
        self._seen_id = newest

    def _judge(self, device: str, artifact: Artifact, baseline: Baseline) -> None:
        with self._database.read() as session:
            before = DriftRepository(session).state(device, artifact.model, artifact.sha256)
            rows = TelemetryRepository(session).windows_of(
                device, artifact.model, artifact.sha256, after_id=before.last_window_id
            )
        try:
            after = judge(before, baseline, [(row.id, read_stored(row)) for row in rows])
        except ContractError:
            log.exception("%s: a stored window cannot be read; its drift is not judged", device)
            return
        if after == before:
            return
        now_ms = self._now_ms()
        with self._database.write() as session:
            DriftRepository(session).save(device, artifact.model, after, now_ms)
            key = f"drift:{device}:{artifact.model}"
            alerts = AlertRepository(session)
            if after.state == "alarm":
                alerts.open(
                    new_alert(
                        "drift", key, _title(device, artifact, after), _detail(after), now_ms, device=device, model=artifact.model
                    )
                )
            else:
                alerts.close(key, now_ms)
            if after.state != before.state and "alarm" in (after.state, before.state):
                kind = "drift.alarm" if after.state == "alarm" else "drift.clear"
                TelemetryRepository(session).note(kind, "", ", ".join(after.alarmed), now_ms, device=device)
        self._changes.publish("drift", device)
        if after.alarmed != before.alarmed:
            self._changes.publish("alert", key)

    def _baseline(self, artifact: Artifact) -> Baseline | None:
        """The artifact's reference, read once; None, said once, when it cannot be read: then its drift is not judged."""
        digest = artifact.reference_sha256
        if digest is None:
            return None
        if digest not in self._baselines:
            try:
                reference, edges = read_reference(self._read_blob(digest))
                self._baselines[digest] = make_baseline(reference.value, edges.value, edges.sha256)
            except (FleetError, ContractError):
                log.exception("%s %s: its drift reference cannot be read", artifact.model, artifact.version)
                self._baselines[digest] = None
        return self._baselines[digest]


def _title(device: str, artifact: Artifact, state: DriftState) -> str:
    names = state.alarmed
    more = f" and {len(names) - TITLE_STREAMS} more" if len(names) > TITLE_STREAMS else ""
    return f"drift on {device}, {artifact.model} {artifact.version}: {', '.join(names[:TITLE_STREAMS])}{more}"


def _detail(state: DriftState) -> dict[str, object]:
    scores = {stream.name: stream.score for stream in state.streams if stream.is_alarmed}
    return {"streams": state.alarmed, "scores": scores, "rows": state.rows, "sha256": state.sha256}
