"""What should an operator look at?"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.errors import UnknownAlertError
from fleet.store.tables import Alert


class AlertRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, alert: int) -> Alert:
        """Raises UnknownAlertError."""
        found = self._session.get(Alert, alert)
        if found is None:
            raise UnknownAlertError(f"there is no alert {alert}")
        return found

    def page(self, before: int | None, limit: int, *, only_open: bool = False) -> Sequence[Alert]:
        """Alerts from the newest on."""
        statement = select(Alert).order_by(Alert.id.desc()).limit(limit)
        if only_open:
            statement = statement.where(Alert.closed_ms.is_(None))
        return self._session.scalars(statement if before is None else statement.where(Alert.id < before)).all()

    def open(self, alert: Alert) -> Alert:
        """Raise an alert; one that is open under the same key only gets the newer title and detail."""
        held = self._find_open(alert.key)
        if held is None:
            self._session.add(alert)
            held = alert
        else:
            held.title, held.detail, held.severity = alert.title, alert.detail, alert.severity
        self._session.flush()
        return held

    def close(self, key: str, now_ms: int) -> Alert | None:
        """End the open alert of a key; None when there is none."""
        held = self._find_open(key)
        if held is not None:
            held.closed_ms = now_ms
            self._session.flush()
        return held

    def _find_open(self, key: str) -> Alert | None:
        return self._session.scalar(select(Alert).where(Alert.key == key, Alert.closed_ms.is_(None)))


def new_alert(kind: str, key: str, title: str, detail: dict[str, Any], now_ms: int, **about: str | None) -> Alert:
    """An alert to open. about: device, model, rollout."""
    return Alert(key=key, kind=kind, severity="warning", title=title, detail=detail, opened_ms=now_ms, **about)
