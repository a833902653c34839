"""torch.compile where it pays, and said aloud where it does not or cannot."""

import msgspec
import pytest
import torch

from tests.toolchain.train.small import SETTINGS, digest, fit, plain_network
from toolchain.errors import NetworkError
from toolchain.pipeline.progress import Silent
from toolchain.train import compiling
from toolchain.train.compiling import MARGIN, pays
from toolchain.train.parallel import Crew

AUTO = msgspec.structs.replace(SETTINGS, compile="auto")
ON = msgspec.structs.replace(SETTINGS, compile="on")


def broken(network):
    raise RuntimeError("no C++ compiler\nand much more about it")


@pytest.mark.parametrize(("fast", "kept"), [(MARGIN - 0.01, True), (MARGIN, False), (2.0, False)], ids=["below", "at", "above"])
def test_only_a_clear_gain_pays(fast, kept):
    assert pays(1.0, fast) is kept


def test_a_short_run_is_not_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", broken)
    progress = Silent()
    trained, result = fit(AUTO, progress=progress)
    assert progress.notes[0].startswith("torch.compile was not tried: all training steps together take about")
    assert digest(trained) == digest(fit()[0])  # timing it changed neither weights nor what is drawn
    assert result.conditions == ()


def test_a_failed_compile_goes_on_without_when_auto_and_ends_when_on(monkeypatch):
    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(compiling, "WORTH_S", 0)
    progress = Silent()
    trained, result = fit(AUTO, progress=progress)
    assert progress.notes == ["torch.compile cannot compile the network: no C++ compiler; training goes on without it"]
    assert digest(trained) == digest(fit()[0])
    assert result.conditions == ()
    with pytest.raises(NetworkError, match=r"cannot compile the network: no C\+\+ compiler$"):
        fit(ON)


@pytest.mark.parametrize(("seconds", "kept"), [([1.0, 0.5], True), ([1.0, 0.99], False)])
def test_what_was_timed_decides(seconds, kept, monkeypatch):
    """Times are given, for no machine's speed may decide a test."""
    network, fast = plain_network(), plain_network()
    monkeypatch.setattr(compiling, "_seconds", lambda trial, forward: seconds.pop(0))
    monkeypatch.setattr(torch, "compile", lambda network: fast)
    progress = Silent()
    found = compiling.faster(network, lambda forward: None, 1000, Crew(), progress)
    assert found is (fast if kept else network)
    assert progress.notes[0].endswith(": kept" if kept else ": not kept")


@pytest.mark.slow
def test_a_compiled_network_learns_the_same():
    """Fused kernels round differently; with six epochs of 0.01 steps 1e-3 lies far below what a step moves."""
    compiled, result = fit(ON, plain_network)
    plain, _ = fit(make=plain_network)
    assert result.conditions == ("torch.compile",)
    for one, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)
