"""How is the newest drift judgement of each device and model kept?"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet.domain.drift import DriftState
from fleet.store.tables import Artifact, Device, Drift, Installed, Window


class DriftRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def of_device(self, device: str) -> Sequence[Drift]:
        return self._session.scalars(select(Drift).where(Drift.device == device).order_by(Drift.model)).all()

    def state(self, device: str, model: str, sha256: str) -> DriftState:
        """The judgement so far; one of another artifact says nothing about this one."""
        row = self._session.get(Drift, (device, model))
        if row is None or row.sha256 != sha256:
            return DriftState(sha256=sha256)
        return msgspec.convert(
            {
                "sha256": row.sha256,
                "state": row.state,
                "rows": row.rows,
                "streams": row.streams,
                "last_window_id": row.last_window_id,
            },
            DriftState,
        )

    def save(self, device: str, model: str, state: DriftState, now_ms: int) -> None:
        self._session.merge(
            Drift(
                device=device,
                model=model,
                sha256=state.sha256,
                state=state.state,
                rows=state.rows,
                last_window_id=state.last_window_id,
                streams=msgspec.to_builtins(state.streams),
                at_ms=now_ms,
            )
        )
        self._session.flush()

    def watched(self, after_id: int) -> tuple[Sequence[tuple[str, Artifact]], int]:
        """(device, artifact it serves) where windows came behind `after_id`, with the newest window's id."""
        newest = self._session.scalar(select(func.max(Window.id))) or 0
        rows = self._session.execute(
            select(Installed.device, Artifact)
            .join(Artifact, Artifact.sha256 == Installed.sha256)
            .join(Device, Device.id == Installed.device)
            .where(
                Device.revoked_ms.is_(None),
                Artifact.reference_sha256.is_not(None),
                select(Window.id)
                .where(Window.device == Installed.device, Window.model == Installed.model, Window.id > after_id)
                .exists(),
            )
        ).all()
        return [(device, artifact) for device, artifact in rows], newest
