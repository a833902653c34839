"""Is what the report promises what a client measures through a device's HTTP endpoint?"""

import json

import pytest

from benchmarks.demo.local_fleet import MODEL, LocalFleet, wait_for
from benchmarks.demo.traffic import DigitsClient, held_out_digits

pytestmark = pytest.mark.e2e


def test_accuracy_over_http_equals_the_report(fleet: LocalFleet) -> None:
    images, labels = held_out_digits()
    client = DigitsClient(fleet.devices["alpha"].port)
    correct = sum(
        int((client.infer(images[start : start + 50]).argmax(1) == labels[start : start + 50]).sum())
        for start in range(0, len(images), 50)
    )
    client.close()
    report = json.loads((fleet.out / MODEL / "1.0.0" / "report.json").read_text())
    metric = report["targets"][0]["metrics"][0]
    assert (metric["name"], metric["split"], metric["n"]) == ("accuracy", "test", len(images))
    assert abs(correct - metric["value"] * len(images)) <= 1
    assert correct / len(images) >= 0.975


def test_the_report_shows_both_engines_and_their_parity(fleet: LocalFleet) -> None:
    report = json.loads((fleet.out / MODEL / "1.0.0" / "report.json").read_text())
    variants = report["targets"][0]["variants"]
    assert {variant["engine"] for variant in variants} >= {"onnxruntime", "openvino"}
    assert all(variant["parity"]["ok"] or variant["verdict"] == "rejected" for variant in variants)
    floats = [variant for variant in variants if variant["precision"] == "float32"]
    assert len(floats) >= 2
    assert all(variant["parity"]["max_abs"] < 1e-3 for variant in floats)


def test_windows_reach_the_fleet_and_count_what_was_served(fleet: LocalFleet) -> None:
    images, _ = held_out_digits()
    client = DigitsClient(fleet.devices["beta"].port)
    with fleet.client() as api:
        before = sum(window["rows"] for window in api.windows("beta", model=MODEL))
        for index in range(40):
            client.infer(images[index : index + 1])
        wait_for(
            "40 rows in windows",
            lambda: sum(window["rows"] for window in api.windows("beta", model=MODEL)) == before + 40,
            20,
        )
    client.close()
