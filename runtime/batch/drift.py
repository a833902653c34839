"""How far was what a batch run saw from the artifact's reference?"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from runtime.contract.artifact import REFERENCE_NAME
from runtime.contract.telemetry import read_reference
from runtime.monitor.cells import DISTANCE_SCALE, distance
from runtime.monitor.monitor import WindowCounts

_USUAL = 0.999
"""Of windows without drift, the share that lies nearer than what is called usual."""


class DriftSummary:
    """Sums of windows; they merge exactly, in any order, so a resumed run says what an uninterrupted one does."""

    def __init__(self) -> None:
        self.rows = 0
        self._cells: np.ndarray | None = None
        self._missing: np.ndarray | None = None
        self._classes: np.ndarray | None = None

    def add(self, windows: Iterable[WindowCounts]) -> None:
        for window in windows:
            self.rows += window.rows
            self._cells = _plus(self._cells, [stream.cells for stream in window.streams])
            self._missing = _plus(self._missing, [stream.missing + stream.out_of_range for stream in window.streams])
            self._classes = _plus(self._classes, window.classes)

    def against(self, directory: Path) -> dict[str, Any]:
        """Every stream's distance from the reference, farthest first, beside what `null_rows` clean rows usually stay below.

        A run of fewer rows strays further without any drift: `enough_rows` says whether the comparison holds.
        """
        received, edges = read_reference((directory / REFERENCE_NAME).read_bytes())
        reference = received.value
        streams: list[dict[str, Any]] = []
        if self._cells is not None and self._missing is not None and len(edges.value.streams):
            expected = np.array([counts.cells for counts in reference.counts], np.int64)
            for index, far in enumerate(distance(expected, self._cells).tolist()):
                null = reference.null[index]
                usual = null[int(_USUAL * (len(null) - 1))] / DISTANCE_SCALE if null else 0.0
                streams.append(
                    {
                        "stream": edges.value.streams[index].name, "distance": round(far, 6), "usual": usual,
                        "drifted": bool(far > usual), "missing": int(self._missing[index]),
                    }
                )  # fmt: skip
        streams.sort(key=lambda stream: -(stream["distance"] if stream["distance"] == stream["distance"] else 1))
        classes = [] if self._classes is None else self._classes.tolist()
        return {"rows": self.rows, "enough_rows": self.rows >= reference.null_rows, "streams": streams, "classes": classes}


def describe(drift: dict[str, Any]) -> list[str]:
    """The summary in lines for people."""
    drifted = [stream for stream in drift["streams"] if stream["drifted"]]
    lines = [f"drift: {len(drifted)} of {len(drift['streams'])} streams beyond the usual, over {drift['rows']} rows"]
    if not drift["enough_rows"]:
        lines.append("  too few rows to judge by")
    lines += [f"  {one['stream']}: distance {one['distance']:.4f}, usual below {one['usual']:.4f}" for one in drifted[:10]]
    return lines


def _plus(total: np.ndarray | None, part: Any) -> np.ndarray:
    values = np.array(part, np.int64)
    return values if total is None else total + values
