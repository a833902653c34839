"""Which ways can an update go, and what is a device like before each?

A path is a state directory made ready (its template) and a wish already held in it; a walk from there carries the wish out.
A template is copied for every strike. Releases come from a real door over TLS, which this process keeps open.
"""

import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import msgspec
import numpy as np

from benchmarks.crash_points.walk import MODEL, Part, Walk, direct, hold
from runtime.config import Config, DeviceSettings
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import DESIRED_LIMIT, write_message
from runtime.contract.chunks import LEAST_BLOB_BYTES
from runtime.contract.deployment import Deployment, Outcome, Role
from runtime.daemon import Daemon
from tests.support.artifacts import write_artifact
from tests.support.daemon import enrolled
from tests.support.pki import Authority
from tests.support.store import Door, ReleaseStore, make_desired

OLD, NEW, WRONG, FAULTY = 1.0, 2.0, 3.0, 4.0
"""Scales of the versions: what a right answer is multiplied by."""
_VERSIONS = {OLD: "1.0.0", NEW: "1.1.0", WRONG: "1.2.0", FAULTY: "1.3.0"}
_DEVICE = "walker"
# A card that all versions share but for its first line: the first fetch is of a whole blob, later ones are of the rest.
_SHARED = np.random.default_rng(2).bytes(LEAST_BLOB_BYTES + 200_000)


class Ending(NamedTuple):
    """How a path must end however it was struck: the scale that serves (0: none), and the outcome reported of its wish."""

    scale: float
    outcome: Outcome


class UpdatePath(NamedTuple):
    """One way through an update. before: the scale that serves at its start; 0 for none. passing: goes live on the way.

    role: what the wish is to be deployed as; beside another than the active one, the version before stays wanted.
    """

    name: str
    before: float
    wishes: tuple[float, ...]
    ending: Ending
    passing: tuple[float, ...] = ()
    role: Role = "active"
    part: "Callable[[Bench], Part]" = lambda _: Part()

    @property
    def may_serve(self) -> set[float]:
        """Any other answer is a fault, above all none at all and a mixture."""
        return {self.before, self.ending.scale, *self.passing}


PATHS = (
    UpdatePath("first", 0.0, (OLD,), Ending(OLD, Outcome.SUCCEEDED)),
    UpdatePath("update", OLD, (NEW,), Ending(NEW, Outcome.SUCCEEDED)),
    UpdatePath("refused", OLD, (WRONG,), Ending(OLD, Outcome.REFUSED)),
    UpdatePath(
        "rolled-back", OLD, (FAULTY,), Ending(OLD, Outcome.ROLLED_BACK), (FAULTY,), part=lambda _: Part(fails=_VERSIONS[FAULTY])
    ),
    UpdatePath("superseded", OLD, (WRONG,), Ending(NEW, Outcome.SUCCEEDED), part=lambda bench: bench.arriving("verifying", NEW)),
    UpdatePath("shadow", OLD, (NEW,), Ending(OLD, Outcome.SUCCEEDED), role="shadow"),
    UpdatePath("retired", OLD, (), Ending(0.0, Outcome.NONE)),
)


PLAIN = PATHS[1]


class Bench:
    """Everything a walk needs, below one folder."""

    def __init__(self, folder: Path, paths: Sequence[UpdatePath] = PATHS) -> None:
        self._folder = folder
        self._releases = ReleaseStore()
        self._artifacts: dict[float, ArtifactRef] = {}
        self._door = Door(Authority(folder / "pki"), self._releases)
        self._generation = 1
        for scale, version in _VERSIONS.items():
            golden = OLD if scale == WRONG else scale
            write_artifact(folder / version, version=version, scale=scale, golden_scale=golden, card=_card(version))
            self._artifacts[scale] = self._releases.publish(folder / version)
        self._templates = {path.name: self._prepare(path) for path in paths}

    def close(self) -> None:
        self._door.stop()

    def artifact(self, scale: float) -> ArtifactRef:
        return self._artifacts[scale]

    def copy(self, path: UpdatePath, place: Path) -> Path:
        """A device at the beginning of this path. Hard links between blobs and slots stay what they are."""
        template = self._templates[path.name]
        subprocess.run(["cp", "-a", str(template), str(place)], check=True)
        shutil.copy(template.with_name(template.name + ".json"), place.with_name(place.name + ".json"))
        return place

    def ask_again(self, path: UpdatePath, daemon: Daemon) -> None:
        """The same wish as a new job, as an operator who starts the rollout again."""
        scales = (path.ending.scale,) if path.ending.outcome is Outcome.SUCCEEDED else path.wishes
        hold(daemon, *self._wish(path, scales))

    def arriving(self, state: str, scale: float) -> Part:
        """A newer wish in the middle of the update."""
        envelope, payload = self._wish(PLAIN, (scale,))
        return Part(arrives_in=state, held=(envelope.hex(), payload.hex()))

    def _prepare(self, path: UpdatePath) -> Path:
        place = self._folder / "templates" / path.name
        enrolled(place, self._door, _DEVICE)
        if path.before:
            self._settle(place, path.before)
        self._hold(place, path, path.wishes)
        part = path.part(self)
        place.with_name(place.name + ".json").write_bytes(msgspec.json.encode(part))
        return place

    def _settle(self, place: Path, scale: float) -> None:
        """Bring a version onto the device and stop in order."""
        self._hold(place, PLAIN, (scale,))
        with mock.patch("runtime.daemon.delegate", direct):
            walk = Walk(place, place.with_suffix(".acknowledged"))
            found = walk.settle().at_end
            walk.daemon.state.store.end_boot()
            walk.close()
        if found != scale:
            raise RuntimeError(f"the device serves {found} instead of {scale} before the first strike")

    def _hold(self, place: Path, path: UpdatePath, scales: tuple[float, ...]) -> None:
        daemon = Daemon(Config(device=DeviceSettings(state_dir=str(place))), deque())
        hold(daemon, *self._wish(path, scales))
        daemon.state.store.close()

    def _wish(self, path: UpdatePath, scales: tuple[float, ...]) -> tuple[bytes, bytes]:
        self._generation += 1
        artifacts = [self._artifacts[scale] for scale in scales]
        desired = make_desired(_DEVICE, self._generation, *artifacts, model=MODEL, rollout=f"r-{self._generation}")
        if path.role != "active":
            beside = tuple(msgspec.structs.replace(one, role=path.role) for one in desired.deployments)
            active = Deployment(model=MODEL, artifact=self._artifacts[path.before])
            desired = msgspec.structs.replace(desired, deployments=(active, *beside))
        return self._releases.seal(desired), write_message(desired, DESIRED_LIMIT)


def _card(version: str) -> bytes:
    return f"# tiny {version}\n".encode() + _SHARED
