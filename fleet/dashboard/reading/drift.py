"""What do the drift pages read: judgements, and for one device the counts behind them?

The judgement is the service's own, made when windows come in; the counts are added up again here from the same windows,
so that a page can show a histogram of every stream beside its reference.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.blobs import BlobStore
from fleet.dashboard.reading.devices import find_device
from fleet.errors import UnknownBlobError
from fleet.store.releases import ReleaseRepository
from fleet.store.tables import Device, Drift, Installed, Twin, Window
from fleet.store.telemetry import read_stored
from runtime.contract.errors import ContractError
from runtime.contract.telemetry import CELLS, EdgeSet, Reference, StreamCounts, read_reference

COUNTS = CELLS + 2
"""The cells, missing, out of range."""
LISTED = 300
BLOCK_WINDOWS = 1000
"""More windows than any block is made of; bounds the work for a device that sends nearly empty ones."""


@dataclass(frozen=True)
class ReferenceFacts:
    """A decoded drift reference. sha256: digest of the edge set, what windows call `edges`. counts: int64[streams, 34]."""

    sha256: str
    edges: EdgeSet
    reference: Reference
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class ModelDriftFacts:
    """One model on a device. missing: why there is nothing to compare with, "" when there is.

    current: int64[streams, 34] over `windows` windows with `rows` rows, the newest at `newest_ms`.
    """

    model: str
    version: str
    judged: Drift | None
    reference: ReferenceFacts | None
    missing: str
    current: NDArray[np.int64]
    windows: int
    rows: int
    newest_ms: int | None


@dataclass(frozen=True)
class DriftPageFacts:
    device: Device
    twin: Twin | None
    models: tuple[ModelDriftFacts, ...]


def read_fleet_drift(session: Session) -> list[tuple[Drift, Installed | None]]:
    """Every judgement of a device that is not revoked, alarms first, then the newest."""
    query = (
        select(Drift, Installed)
        .join(Device, Device.id == Drift.device)
        .outerjoin(Installed, (Installed.device == Drift.device) & (Installed.model == Drift.model))
        .where(Device.revoked_ms.is_(None))
        .order_by((Drift.state == "alarm").desc(), Drift.at_ms.desc())
        .limit(LISTED)
    )
    return [(drift, installed) for drift, installed in session.execute(query)]


def read_device_drift(session: Session, blobs: BlobStore, id: str) -> DriftPageFacts:
    """Raises UnknownDeviceError."""
    device = find_device(session, id)
    rows = session.scalars(select(Installed).where(Installed.device == id).order_by(Installed.model)).all()
    return DriftPageFacts(device, session.get(Twin, id), tuple(_model(session, blobs, row) for row in rows if row.sha256))


def load_reference(blobs: BlobStore, sha256: str) -> ReferenceFacts:
    """Raises UnknownBlobError or a ContractError."""
    with blobs.open(sha256) as file:
        reference, edges = read_reference(file.read())
    return ReferenceFacts(edges.sha256, edges.value, reference.value, _table(reference.value.counts))


def _model(session: Session, blobs: BlobStore, row: Installed) -> ModelDriftFacts:
    reference, missing = _reference(session, blobs, row.sha256 or "")
    judged = session.get(Drift, (row.device, row.model))
    if judged is not None and judged.sha256 != row.sha256:
        judged = None  # of the version before; says nothing about this one
    windows = _block(session, row, reference, judged) if reference else []
    current = np.zeros((len(reference.edges.streams) if reference else 0, COUNTS), dtype=np.int64)
    for window in windows:
        current += _table(read_stored(window).streams)
    return ModelDriftFacts(
        model=row.model,
        version=row.version or "",
        judged=judged,
        reference=reference,
        missing=missing,
        current=current,
        windows=len(windows),
        rows=sum(window.rows for window in windows),
        newest_ms=max((window.at_ms + window.duration_ms for window in windows), default=None),
    )


def _block(session: Session, row: Installed, reference: ReferenceFacts, judged: Drift | None) -> list[Window]:
    """The windows behind the newest judgement; without one, the newest that a judgement would begin with."""
    query = (
        select(Window)
        .where(Window.device == row.device, Window.model == row.model, Window.sha256 == row.sha256, Window.role == "active")
        .where(Window.edges == reference.sha256, Window.rows > 0)
        .order_by(Window.id.desc())
        .limit(BLOCK_WINDOWS)
    )
    wanted = reference.reference.null_rows
    if judged is not None and judged.last_window_id:
        query = query.where(Window.id <= judged.last_window_id)
        wanted = judged.rows
    block: list[Window] = []
    rows = 0
    for window in session.scalars(query):
        block.append(window)
        rows += window.rows
        if rows >= wanted:
            break
    return block


def _reference(session: Session, blobs: BlobStore, sha256: str) -> tuple[ReferenceFacts | None, str]:
    artifact = ReleaseRepository(session).by_digest(sha256)
    if artifact is None:
        return None, "It serves an artifact this fleet does not know."
    if artifact.reference_sha256 is None:
        return None, "Its artifact carries no drift reference (reference.bin)."
    try:
        return load_reference(blobs, artifact.reference_sha256), ""
    except UnknownBlobError:
        return None, "The drift reference of its artifact is not in the blob store."
    except ContractError as error:
        return None, f"The drift reference of its artifact cannot be read ({error.code})."


def _table(streams: tuple[StreamCounts, ...]) -> NDArray[np.int64]:
    """int64[streams, 34]; counts beyond 63 bits were refused when they came in."""
    rows = [(*stream.cells, stream.missing, stream.out_of_range) for stream in streams]
    return np.array(rows, dtype=np.int64).reshape(len(rows), COUNTS)
