"""How does an artifact come onto a device from a USB stick, with the checks of an online update?

The same state machine runs, up to the switch; the daemon does the rest at its next start. Needs the daemon stopped: two
processes must not move the same slots.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import msgspec

from runtime.config import Config, UpdateSettings
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import sha256_hex
from runtime.contract.deployment import SHARE_WHOLE, DeviceProfile, Outcome, Role, Settings
from runtime.contract.deployment import DeploymentState as S
from runtime.errors import ConfigError, UnsuitableError
from runtime.files import held_alone, make_directory, write_durably
from runtime.identity import IDENTITY_FILE, ROOT_FILE, Identity, identity_dir, read_identity
from runtime.profile import detect_profile
from runtime.serving.health import Health
from runtime.update.actions import Actions
from runtime.update.delegate import delegate, error_of
from runtime.update.machine import Job, Machine
from runtime.update.state import State, open_state

_MANIFEST = re.compile(r"targets/([a-z0-9-]{1,40})/([^/]+)/([a-z0-9-]{1,40})/([0-9a-f]{64})\.manifest\.json")


class Offline:
    """The serving side while nothing serves: the daemon opens what it finds at its next start."""

    def open(self, directory: Path, role: Role = "active", share: int = SHARE_WHOLE, *, trial: bool = False) -> Path:
        return directory

    def switch(self, served: Any) -> None:
        pass

    def retire(self, model: str, role: Role = "active") -> None:
        pass

    def artifact(self, model: str, role: Role = "active") -> ArtifactRef | None:
        return None

    def health(self, model: str, role: Role = "active") -> Health:
        return Health()

    def settle(self, model: str, role: Role = "active") -> None:
        pass


def install(config: Config, bundle: Path, *, model: str, target: str, root: Path | None) -> Job:
    """Bring the bundle's artifact for this device into a slot and switch to it. Returns the job, now in probation.

    Raises the error the update ended with, ConfigError for a wrong choice or a running daemon.
    """
    make_directory(config.state_dir)
    with held_alone(config.state_dir):
        if root is not None:
            pin_root(config.state_dir, root)
        profile = detect_profile(config.profile)
        name, artifact = choose(bundle, profile, model=model, target=target)
        state = open_state(config.state_dir)
        try:
            return _update(config.update, state, profile, name=name, artifact=artifact, source=str(bundle.resolve()))
        finally:
            state.store.close()


def choose(bundle: Path, profile: DeviceProfile, *, model: str, target: str) -> tuple[str, ArtifactRef]:
    """The model and artifact of a bundle that this device should take: the first target that fits it.

    Only names are read here; whether they are to be believed is settled by the update. Raises ConfigError or UnsuitableError.
    """
    found: dict[str, dict[str, ArtifactRef]] = {}
    for match in filter(None, map(_MANIFEST.fullmatch, _members(bundle))):
        name, version, place, sha256 = match.groups()
        found.setdefault(name, {})[place] = ArtifactRef(version=version, target=place, sha256=sha256)
    if not found or (model and model not in found):
        raise ConfigError(f"{bundle} holds {', '.join(sorted(found)) or 'no artifact'}, not {model or 'a release'}")
    if not model and len(found) > 1:
        raise ConfigError(f"{bundle} holds several models; choose one: --model {min(found)}")
    chosen = model or next(iter(found))
    for name in (target,) if target else profile.profiles:
        if name in found[chosen]:
            return chosen, found[chosen][name]
    wanted = target or f"one of {', '.join(profile.profiles)}"
    raise UnsuitableError(f"{bundle} has {chosen} for {', '.join(sorted(found[chosen]))}, not for {wanted}")


def pin_root(state_dir: Path, root: Path) -> None:
    """Believe this release root from now on. Raises ConfigError on a device that has one already: changing it is enrolling."""
    try:
        raw = root.read_bytes()
    except OSError as error:
        raise ConfigError(f"--root {root}: {error.strerror}") from error
    held = read_identity(state_dir)
    if held is not None:
        if held.root_sha256 != sha256_hex(raw):
            raise ConfigError(f"this device has another release root pinned; enrol it again to change it ({root})")
        return
    place = identity_dir(state_dir)
    make_directory(place, mode=0o700)
    write_durably(place / ROOT_FILE, raw, mode=0o600)
    write_durably(place / IDENTITY_FILE, msgspec.json.encode(Identity(root_sha256=sha256_hex(raw))), mode=0o600)


def _update(
    bounds: UpdateSettings, state: State, profile: DeviceProfile, *, name: str, artifact: ArtifactRef, source: str
) -> Job:
    """Step a new job until it is live or over."""
    if (running := state.store.jobs().get(name)) is not None and running.is_running:
        raise ConfigError(f"an update of {name} is under way ({running.state}); let the daemon finish it first")
    # Not this process will serve, so its bounds say nothing.
    actions = Actions(state, Offline(), delegate, profile=profile, bounds=bounds, settings=Settings, memory=lambda _bytes: ())
    machine = Machine(actions.table(), state.store.save_job, lambda _job: None)
    job = machine.start(
        Job(model=name, artifact=artifact, source=source, slot=state.slots.inactive(name), previous=state.slots.active(name))
    )
    while job.is_running and job.state is not S.PROBATION:
        job, _ = machine.step(job)
    if job.outcome in (Outcome.REFUSED, Outcome.ROLLED_BACK):
        raise error_of(job.error_code)(job.error_detail)
    return job


def _members(bundle: Path) -> list[str]:
    try:
        with zipfile.ZipFile(bundle) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{bundle}: {error}; a bundle is made by `toolchain bundle`") from error
