"""One device's update side in this process: real slots, store, serving and helper tasks; releases come from a bundle."""

import msgspec
import pytest

from runtime.config import UpdateSettings
from runtime.contract.canonical import sha256_hex
from runtime.contract.deployment import Settings
from runtime.files import make_directory
from runtime.identity import IDENTITY_FILE, ROOT_FILE, Identity, identity_dir
from runtime.serving.models.repository import Repository
from runtime.update import helper
from runtime.update.actions import Actions
from runtime.update.boot import open_active, recover_jobs
from runtime.update.machine import Job, Machine
from runtime.update.requests import TestRequest
from runtime.update.state import open_state
from runtime.update.updater import Updater
from tests.support.artifacts import PROFILE
from tests.support.store import ReleaseStore


def direct(task, request, _timeout_s):
    """The helper's work without its process, hence without its memory cap, which would stay on every test after it."""
    if isinstance(request, TestRequest):
        request = msgspec.structs.replace(request, memory_bytes=0)
    return helper.TASKS[task][1](request)


class Device:
    """Everything of a daemon but its network and its endpoint. `start` may be called again after a simulated power cut."""

    def __init__(self, state_dir, release_store, bundle):
        self.state_dir = state_dir
        self.releases = release_store
        self.bundle = bundle
        self.steps = []
        self.alarms = []
        self.delegate = direct
        self.bounds = UpdateSettings(reserve_bytes=0)
        self.settings = Settings(probation_s=0)
        place = identity_dir(state_dir)
        make_directory(place)
        (place / ROOT_FILE).write_bytes(release_store.root)
        (place / IDENTITY_FILE).write_bytes(msgspec.json.encode(Identity(root_sha256=sha256_hex(release_store.root))))

    def start(self):
        self.state = open_state(self.state_dir)
        self.store, self.slots = self.state.store, self.state.slots
        self.repository = Repository()
        _, was_clean = self.store.begin_boot()
        recover_jobs(self.store, self.slots, clean=was_clean)
        self.left_out = open_active(self.store, self.slots, self.repository, lambda *alarm: self.alarms.append(alarm))
        actions = Actions(
            self.state,
            self.repository,
            self._delegate,
            profile=PROFILE,
            bounds=self.bounds,
            settings=lambda: self.settings,
        )
        self.machine = Machine(actions.table(), self.store.save_job, self.steps.append)
        self.updater = Updater(self.state, self.machine, self.repository, lambda: None)
        return self

    def _delegate(self, task, request, timeout_s):
        return self.delegate(task, request, timeout_s)

    def close(self):
        self.repository.close()
        self.store.close()

    def publish(self, directory):
        """Release an artifact and put it on the bundle."""
        ref = self.releases.publish(directory)
        self.releases.write_bundle(self.bundle)
        return ref

    def job(self, artifact, model="tiny"):
        return Job(
            model=model,
            artifact=artifact,
            source=str(self.bundle),
            slot=self.slots.inactive(model),
            previous=self.slots.active(model),
        )

    def begin(self, artifact, model="tiny"):
        """Store a started job, as the updater would; the next rounds carry it out."""
        self.updater._jobs[model] = self.machine.start(self.job(artifact, model))

    def finish(self, model="tiny"):
        """Rounds until nothing runs. Returns the job as stored."""
        for _ in range(100):
            if not (job := self.store.jobs()[model]).is_running:
                self.updater._clean_up()
                return job
            self.updater.once()
        raise AssertionError(f"still running: {job}")

    def update(self, artifact, model="tiny"):
        self.begin(artifact, model)
        return self.finish(model)


@pytest.fixture
def device(tmp_path):
    device = Device(tmp_path / "device", ReleaseStore(), tmp_path / "release.edge")
    yield device.start()
    device.close()
