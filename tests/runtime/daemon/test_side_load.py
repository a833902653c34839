"""Does a running daemon take a release from a stick, with the checks of an online update and without a restart?"""

import numpy as np
import pytest

from runtime.config import Config, DeviceSettings
from runtime.contract.canonical import DESIRED_LIMIT, write_message
from runtime.contract.deployment import Settings
from runtime.contract.errors import DigestError
from runtime.install import install
from runtime.status import read_status
from runtime.update.state import open_state
from runtime.update.store import Held
from tests.support.artifacts import FEATURES, TARGET, scores, write_artifact
from tests.support.daemon import DaemonProcess
from tests.support.store import make_desired

pytestmark = pytest.mark.e2e

ROWS = np.random.default_rng(5).normal(size=(2, FEATURES)).astype(np.float32)


def test_a_stick_is_taken_up_and_a_tampered_one_refused(tmp_path, store):
    (tmp_path / "root.json").write_bytes(store.root)
    write_artifact(tmp_path / "1", version="1.0.0", scale=1.0)
    new = write_artifact(tmp_path / "2", version="1.1.0", scale=2.0)
    store.publish(tmp_path / "1")
    first = store.write_bundle(tmp_path / "first.edge")
    config = Config(device=DeviceSettings(state_dir=str(tmp_path / "device")))
    state = open_state(tmp_path / "device")  # as a fleet's last word may have left it
    quick = make_desired("dev", 1, settings=Settings(probation_s=0))
    state.store.hold(Held(b"", write_message(quick, DESIRED_LIMIT)))
    state.store.close()
    with_root = {"model": "", "target": TARGET, "root": tmp_path / "root.json"}
    daemon = DaemonProcess(tmp_path / "device").start()
    try:
        daemon.wait_until(lambda: "serves nothing yet" in daemon.log(), "the start")
        assert install(config, first, **with_root).is_live
        np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)

        store.publish(tmp_path / "2")
        blob = next(name for name, raw in store.blobs.items() if raw == (tmp_path / "2" / "model.npz").read_bytes())
        good = store.blobs[blob]
        store.blobs[blob] = good[:-1] + bytes([good[-1] ^ 1])
        with pytest.raises(DigestError):
            install(config, store.write_bundle(tmp_path / "bad.edge"), **(with_root | {"root": None}))
        np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)

        store.blobs[blob] = good
        job, is_live = install(config, store.write_bundle(tmp_path / "good.edge"), **(with_root | {"root": None}))
        assert (job.artifact, is_live) == (new, True)
        np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, 2.0), rtol=1e-4, atol=1e-5)
        (shown,) = read_status(tmp_path / "device")["models"]
        assert (shown["role"], shown["artifact"]["version"], shown["held_back"]) == ("active", "1.1.0", "")
    finally:
        assert daemon.stop() == 0
