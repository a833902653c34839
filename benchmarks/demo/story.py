"""What does the demo tell? Seven acts, from a recipe to a fleet that stopped a bad release and noticed a slipped lens."""

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.demo.local_fleet import MODEL, LocalFleet, StepFailedError, all_serve, wait_for
from benchmarks.demo.teller import Teller
from benchmarks.demo.traffic import Traffic, held_out_digits, out_of_focus

DEVICES = {"porch-cam": "house", "gate-cam": "house", "dock-cam": "yard", "yard-cam": "yard"}
BLURRED = "dock-cam"
BAD_VERSION, GOOD_VERSION = "1.2.0", "1.2.1"
TRAFFIC_HZ = 60.0
"""Images a second a device; four devices, the service and the broker then take about one of two cores."""
WIDER = {"model.options.width": "24"}
MISLABELLED = {**WIDER, "data.options.relabel.3": "8"}
CANARY_HALF_ALL = [{"count": 1, "soak_s": 6}, {"percent": 50, "soak_s": 6}, {"percent": 100, "soak_s": 6}]
GATES = {"min_rows": 300, "max_latency_ratio": 5.0}
"""The wider network is meant to be slower, and builds run beside the fleet here; everything else keeps its default."""
ROLLOUT_TIMEOUT_S = 180
DRIFT_TIMEOUT_S = 60
ENDS = {"done", "rolled_back", "paused"}

Document = Mapping[str, Any]


class Story:
    """Runs the acts in order on one fleet. Each act raises StepFailedError when what it tells did not come true."""

    def __init__(self, fleet: LocalFleet, teller: Teller) -> None:
        self._fleet, self._tell = fleet, teller
        self._traffic: dict[str, Traffic] = {}
        self._builder = ThreadPoolExecutor(1, thread_name_prefix="build")
        self._builds: dict[str, Future[Path]] = {}

    def run(self) -> None:
        self._build_and_publish_the_first()
        self._start_the_fleet()
        self._roll_out_to_all()
        self._roll_out_by_stages()
        self._stop_a_bad_release()
        self._pass_a_clean_one()
        self._notice_a_slipped_lens()

    def close(self) -> None:
        for traffic in self._traffic.values():
            traffic.stop()
        self._builder.shutdown(cancel_futures=True)

    # the acts

    def _build_and_publish_the_first(self) -> None:
        self._tell.act("1  Build, sign and publish digits 1.0.0")
        self._fleet.create()
        self._tell.step(
            "trust root made; its private keys stay on this side", "toolchain keys create · fleet init --root root.json"
        )
        self._fleet.start_service()
        self._fleet.authorize()
        self._tell.step(
            f"fleet service up at {self._fleet.url}; the root now lets it vouch for freshness", "toolchain keys authorize"
        )
        self._begin_building("1.0.0", {})
        self._publish("1.0.0")

    def _start_the_fleet(self) -> None:
        self._tell.act("2  Four devices enrol and start serving nothing yet")
        for name, place in DEVICES.items():
            self._fleet.add_device(name, {"place": place})
        wait_for("all four devices report", lambda: self._fleet.reported_devices() == len(DEVICES), 30)
        self._tell.step(
            ", ".join(DEVICES) + " are online",
            "one-time token · key made on the device · certificate signed · MQTT over mutual TLS",
        )

    def _roll_out_to_all(self) -> None:
        self._tell.act("3  Roll 1.0.0 out to all")
        self._begin_building("1.1.0", WIDER)
        self._finish(self._start_rollout("1.0.0", [{"percent": 100, "soak_s": 1}], gates={"min_rows": 0}), "done")
        self._require_all_serve("1.0.0")
        images, _ = held_out_digits()
        for index, (name, device) in enumerate(self._fleet.devices.items()):
            self._traffic[name] = Traffic(device.port, images, TRAFFIC_HZ, seed=index)
            self._traffic[name].start()
        self._tell.step(f"real held-out digits now arrive at {TRAFFIC_HZ:.0f} a second and device")
        self._publish("1.1.0")

    def _roll_out_by_stages(self) -> None:
        self._tell.act("4  Roll the wider 1.1.0 out: canary, half, all")
        self._begin_building(BAD_VERSION, MISLABELLED)
        self._finish(self._start_rollout("1.1.0", CANARY_HALF_ALL), "done")
        self._require_all_serve("1.1.0")

    def _stop_a_bad_release(self) -> None:
        self._tell.act(f"5  {BAD_VERSION} was trained with every 3 labelled 8: it builds, passes its self-test, and is wrong")
        self._publish(BAD_VERSION)
        self._begin_building(GOOD_VERSION, {**WIDER, "train.seed": "11"})
        rollout = self._finish(self._start_rollout(BAD_VERSION, CANARY_HALF_ALL), "rolled_back")
        failed = [verdict for verdict in rollout["verdicts"] if verdict["decision"] == "fail"]
        if not failed:
            raise StepFailedError(f"{BAD_VERSION} went back without a failed gate: {rollout['reason']}")
        for verdict in failed:
            self._tell.step(f"gate {verdict['gate']!r} stopped it", verdict["reason"])
        self._require_all_serve("1.1.0")

    def _pass_a_clean_one(self) -> None:
        self._tell.act(f"6  The control: a clean {GOOD_VERSION} passes the same gates")
        self._publish(GOOD_VERSION)
        self._finish(self._start_rollout(GOOD_VERSION, CANARY_HALF_ALL), "done")
        self._require_all_serve(GOOD_VERSION)

    def _notice_a_slipped_lens(self) -> None:
        """Out of focus, edges go and the light stays: sharpness must be named first and brightness not at all."""
        self._tell.act(f"7  The lens of {BLURRED} slips out of focus")
        self._traffic[BLURRED].change = out_of_focus
        names = wait_for(f"a drift alarm for {BLURRED}", lambda: self._alarmed(BLURRED), DRIFT_TIMEOUT_S)
        self._tell.step(f"drift alarm on {BLURRED}: {', '.join(names)} (the most changed first)")
        if names[0] != "sharpness" or "brightness" in names:
            raise StepFailedError(f"the alarm names {names}; sharpness should come first, and the light did not change")
        others = {name: alarmed for name in DEVICES if name != BLURRED and (alarmed := self._alarmed(name))}
        if others:
            raise StepFailedError(f"devices with sound lenses raised an alarm too: {others}")
        self._tell.step("the other three stay quiet, and the light of this one raises no alarm")

    # their parts

    def _begin_building(self, version: str, settings: Mapping[str, str]) -> None:
        """Build beside what follows; `_publish` waits for it."""
        self._builds[version] = self._builder.submit(self._fleet.build, version, settings)

    def _publish(self, version: str) -> None:
        release = self._builds[version].result()
        for line in summary(release):
            self._tell.step(f"built {MODEL} {version}: {line}")
        self._fleet.publish(release)
        self._tell.step(f"published {MODEL} {version}, signed on this side")

    def _start_rollout(self, version: str, stages: list[dict[str, Any]], gates: Document = GATES) -> str:
        with self._fleet.client() as client:
            body = {"model": MODEL, "version": version, "stages": stages, "gates": dict(gates)}
            rollout = str(client.create_rollout(body)["id"])
            client.act(rollout, "start")
        return rollout

    def _finish(self, rollout: str, expected: str) -> Document:
        """Follow a rollout to its end, telling each change of stage and state."""
        told = ("", -1)

        def look() -> Document | None:
            nonlocal told
            with self._fleet.client() as client:
                seen = client.rollout(rollout)
            now = (str(seen["state"]), int(seen["stage"]))
            if now != told:
                told = now
                self._tell.step(f"{seen['version']}: {now[0]}, stage {now[1] + 1} of {seen['stages']}", str(seen["reason"]))
            return seen if seen["state"] in ENDS else None

        ended = wait_for(f"the end of rollout {rollout}", look, ROLLOUT_TIMEOUT_S)
        if ended["state"] != expected:
            raise StepFailedError(f"the rollout of {ended['version']} ended {ended['state']}: {ended['reason']}")
        return ended

    def _require_all_serve(self, version: str) -> None:
        wait_for(f"all devices serve {version}", lambda: all_serve(self._fleet, version), 30)
        self._tell.step(f"all four devices serve {MODEL} {version}")

    def _alarmed(self, device: str) -> list[str]:
        """The streams of a device in alarm, the most changed first."""
        with self._fleet.client() as client:
            models = client.drift(device)["models"]
        return [stream["name"] for model in models for stream in model["streams"] if stream["is_alarmed"]]


def summary(release: Path) -> list[str]:
    """What the build's report says of each target, in one line."""
    report = json.loads((release / "report.json").read_text())
    lines = []
    for target in report["targets"]:
        metric = target["metrics"][0]
        chosen = next(variant for variant in target["variants"] if variant["name"] == target["chosen"])
        latency = f", p50 {chosen['latency']['p50_ns'] / 1e6:.2f} ms" if chosen["latency"] else ""
        lines.append(f"{metric['name']} {metric['value']:.3f} on {metric['n']} held-out scans; chose {target['chosen']}{latency}")
    return lines
