"""How does an artifact come onto a device from a USB stick, with the checks of an online update?

A running daemon is asked, by way of state.db, to do all of it: two processes must not move the same slots. Without one the
same state machine runs here, up to the switch, and the daemon does the rest at its next start.
"""

import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from runtime.config import Config, UpdateSettings
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import sha256_hex
from runtime.contract.deployment import SHARE_WHOLE, DeviceProfile, Outcome, Role, Settings
from runtime.contract.deployment import DeploymentState as S
from runtime.errors import ConfigError, InUseError, UnsuitableError, UpdateError, reason
from runtime.files import held_alone, make_directory, make_state_directory, write_durably
from runtime.identity import IDENTITY_FILE, ROOT_FILE, Identity, identity_dir, read_identity
from runtime.profile import detect_profile
from runtime.serving.models.health import Health
from runtime.update.actions import Actions
from runtime.update.delegate import delegate, error_of
from runtime.update.machine import Job, Machine
from runtime.update.state import State, open_state
from runtime.update.store import STATE_FILE, SideLoad, Store

TAKE_UP_S = 150.0
"""A daemon may be in the middle of another update's step; the longest is a self-test."""
LOOK_S = 0.2
_COMING = (S.FETCHING, S.VERIFYING, S.TESTING, S.SWITCHING, S.ROLLING_BACK, S.REPORTING)
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


class Installed(NamedTuple):
    """job: committed, or still in probation; is_live: a daemon serves it."""

    job: Job
    is_live: bool


def install(config: Config, bundle: Path, *, model: str, target: str, root: Path | None) -> Installed:
    """Bring the bundle's artifact for this device into a slot and switch to it.

    Raises the error the update ended with, ConfigError for a wrong choice, InUseError when a daemon holds the device but does
    not take the bundle up.
    """
    make_state_directory(config.state_dir)
    bundle = bundle.resolve()
    if root is not None:
        pin_root(config.state_dir, root)
    name, artifact = choose(bundle, detect_profile(config.profile), model=model, target=target)
    try:
        with held_alone(config.state_dir):
            state = open_state(config.state_dir)
            try:
                profile = detect_profile(config.profile)
                return Installed(_update(config.update, state, profile, name=name, artifact=artifact, source=str(bundle)), False)
            finally:
                state.store.close()
    except InUseError:
        return Installed(_ask_the_daemon(config, SideLoad(name, artifact, str(bundle))), True)


def _ask_the_daemon(config: Config, wanted: SideLoad) -> Job:
    """Have the running daemon bring it in, and wait until it serves or the update is over."""
    store, bounds = Store(config.state_dir / STATE_FILE), config.update
    try:
        store.ask_for(wanted)
        try:
            if not _wait(TAKE_UP_S, lambda: wanted.model not in {one.model for one in store.side_loads()}):
                running = store.jobs().get(wanted.model)
                if running is not None and running.is_running:
                    raise InUseError(f"an update of {wanted.model} is under way ({running.state}); install when it has ended")
                raise InUseError(f"{config.state_dir} is in use, but nobody there takes the bundle up; is the daemon well?")
        except BaseException:
            store.forget_side_load(wanted.model)
            raise
        most_s = bounds.fetch_timeout_s + bounds.verify_timeout_s + bounds.test_timeout_s + TAKE_UP_S
        if not _wait(most_s, lambda: store.jobs()[wanted.model].state not in _COMING):
            raise UpdateError(f"{wanted.model} is still under way after {most_s:g} s; see `runtime status`")
        return _unless_it_failed(store.jobs()[wanted.model])
    finally:
        store.close()


def _wait(timeout_s: float, is_done: Callable[[], bool]) -> bool:
    until = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_S)
    return True


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
    held = state.store.held()
    job = machine.start(
        Job(
            model=name,
            artifact=artifact,
            source=source,
            over=held.desired.value.generation if held else 0,
            slot=state.slots.inactive(name),
            previous=state.slots.active(name),
        )
    )
    while job.is_running and job.state is not S.PROBATION:
        job, _ = machine.step(job)
    return _unless_it_failed(job)


def _unless_it_failed(job: Job) -> Job:
    if job.outcome in (Outcome.REFUSED, Outcome.ROLLED_BACK):
        raise error_of(job.error_code)(job.error_detail)
    return job


def _members(bundle: Path) -> list[str]:
    try:
        with zipfile.ZipFile(bundle) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{bundle}: {reason(error)}; a bundle is made by `toolchain bundle`") from error
