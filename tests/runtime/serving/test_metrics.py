"""Is what `/metrics` says well-formed for Prometheus, with each role told apart?"""

import asyncio
import re
import time

import numpy as np
import pytest

from runtime.serving.inference import Call, Inference, Joining
from runtime.serving.metrics import render_metrics
from tests.runtime.serving.conftest import write_artifact

ROWS = {"input": np.zeros((1, 4), np.float32)}
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}]*)\})? (\S+)")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def parse(text):
    """Text exposition format 0.0.4, strictly: {(name, labels): value}. Written for this test, after the format's page.

    Each family has its HELP and TYPE before its samples and comes once; no sample comes twice.
    """
    assert text.endswith("\n")
    samples, families, family, kind = {}, set(), "", ""
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert family not in families
            families.add(family)
            kind = ""
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family
            assert kind in SUFFIXES
        else:
            name, labels, value = SAMPLE.fullmatch(line).groups()
            assert kind
            assert name in {family + suffix for suffix in SUFFIXES[kind]}
            assert kind != "counter" or name.endswith("_total")
            pairs = tuple(LABEL.findall(labels or ""))
            assert ",".join(f'{key}="{text}"' for key, text in pairs) == (labels or "")
            assert (name, pairs) not in samples
            samples[name, pairs] = float(value)
    return samples


@pytest.fixture
def roles(repository, tmp_path):
    """Three versions of one model, one in each role."""
    repository.switch(repository.open(write_artifact(tmp_path / "two", version="2.0.0"), "split", 5000))
    repository.switch(repository.open(write_artifact(tmp_path / "three", version="3.0.0"), "shadow"))
    return repository


def test_every_role_of_a_model_is_told_and_the_text_is_well_formed(roles):
    inference = Inference(roles, inline_ns=10**12, waiting=8)
    for _ in range(40):
        inference.submit(Call("tiny", ROWS), lambda answer: answer)
    (shadow,) = roles.shadows()
    deadline = time.monotonic() + 20
    while shadow.totals().compared < 20:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    samples = parse(render_metrics(roles, inference, {200: 3, 404: 1}, 2).decode())

    def value(name, **labels):
        found = [value for (sample, pairs), value in samples.items() if sample == name and labels.items() <= dict(pairs).items()]
        assert len(found) == 1, (name, labels)
        return found[0]

    assert value("edgewright_inferences_total", role="active", version="1.0.0") == 20
    assert value("edgewright_inferences_total", role="split", version="2.0.0") == 20
    assert 0 < value("edgewright_inferences_total", role="shadow", version="3.0.0") <= 20
    assert value("edgewright_inference_seconds_count", role="split") == 20
    assert value("edgewright_inference_seconds_bucket", role="split", le="+Inf") == 20
    assert value("edgewright_shadow_rows_total", outcome="agreed", role="shadow") == 20
    assert [value("edgewright_shadow_rows_total", outcome=one) for one in ("disagreed", "dropped", "failed")] == [0, 0, 0]
    assert value("edgewright_shadow_queued_rows") == 0
    assert value("edgewright_batches_total") == 0
    assert value("edgewright_inference_underway_seconds") == 0
    assert value("edgewright_http_responses_total", status="404") == 1


def test_batches_and_queues_are_told(roles):
    roles.retire("tiny", "split")
    inference = Inference(roles, inline_ns=0, waiting=8, joining=Joining(4, 10.0))

    async def ask():
        running = [inference.submit(Call("tiny", ROWS), lambda answer: answer) for _ in range(4)]
        queued = parse(render_metrics(roles, inference, {}, 0).decode())
        await asyncio.gather(*running)
        return queued, parse(render_metrics(roles, inference, {}, 0).decode())

    queued, done = asyncio.run(ask())
    inference.close()
    assert sum(value for (name, _), value in queued.items() if name == "edgewright_queued_requests") == 1
    assert sum(value for (name, _), value in done.items() if name == "edgewright_queued_requests") == 0
    assert (done["edgewright_batches_total", ()], done["edgewright_batched_requests_total", ()]) == (1, 4)


@pytest.mark.parametrize(
    "text",
    ["a 1", "# HELP a x\n# TYPE a gauge\na 1", "# HELP a x\n# TYPE a gauge\na{b=c} 1\n", "# HELP a x\n# TYPE b gauge\nb 1\n"],
)
def test_the_check_itself_refuses_what_is_not_well_formed(text):
    with pytest.raises((AssertionError, AttributeError)):
        parse(text)
