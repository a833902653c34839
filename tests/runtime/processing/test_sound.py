"""Do the sound steps give what torch, SciPy and librosa give?

torch.stft and scipy.fft run here, in float64: 1e-9 leaves room for the order of sums. librosa does not; the numbers are what
librosa 0.11.0 printed for the call beside them, with as many places.
"""

import numpy as np
import pytest
import scipy.fft
import scipy.signal

from runtime.contract.artifact import Step
from runtime.errors import RequestError
from runtime.processing.pipeline import Preparation
from runtime.processing.sound import mel_weights

SECONDS = np.arange(1600) / 16_000
SOUND = 0.5 * np.sin(2 * np.pi * 440 * SECONDS) + 0.1 * np.cos(2 * np.pi * 3000 * SECONDS)


def run(value, *steps):
    return Preparation([Step(name=name, options=options) for name, options in steps]).one(value)


@pytest.mark.parametrize("window", ["hann", "hamming", "rectangular"])
@pytest.mark.parametrize(("size", "fft", "hop"), [(400, 0, 160), (400, 512, 160), (64, 64, 16), (64, 128, 63)])
@pytest.mark.parametrize(("pad", "mode"), [("reflect", "reflect"), ("zero", "constant")])
def test_stft_is_torch_s(window, size, fft, hop, pad, mode):
    import torch

    weights = torch.from_numpy(scipy.signal.get_window("boxcar" if window == "rectangular" else window, size))
    wanted = torch.stft(
        torch.from_numpy(SOUND), fft or size, hop, size, weights, center=True, pad_mode=mode, return_complex=True
    ).abs()
    options = {"window_size": size, "fft_size": fft, "hop": hop, "window": window, "pad": pad}
    found = run(SOUND, ("stft", options))
    np.testing.assert_allclose(found, wanted.numpy().T, atol=1e-9)
    np.testing.assert_allclose(run(SOUND, ("stft", {**options, "output": "power"})), found**2, rtol=1e-12)


def test_stft_without_padding_is_torch_s():
    import torch

    weights = torch.hann_window(128, dtype=torch.float64)
    wanted = torch.stft(torch.from_numpy(SOUND), 128, 50, 128, weights, center=False, return_complex=True).abs().numpy().T
    np.testing.assert_allclose(run(SOUND, ("stft", {"window_size": 128, "hop": 50})), wanted, atol=1e-9)


def test_a_long_sound_is_taken_in_parts_that_join():
    long = np.random.default_rng(0).normal(size=20_000)
    found = run(long, ("stft", {"window_size": 16, "hop": 4}))
    assert found.shape == (4997, 9)
    np.testing.assert_allclose(found[3000:], run(long[12_000:], ("stft", {"window_size": 16, "hop": 4})), rtol=1e-12)


LIBROSA = {
    # librosa.filters.mel(sr=16000, n_fft=512, n_mels=20, fmin=50, fmax=7000, htk=False, norm="slaney", dtype=float64)
    ("slaney", "area"): ({(60, 10): 0.0019464929, (200, 19): 0.0009679832, (5, 1): 0.0}, 0.6401417360320695),
    # ... htk=True, norm=None
    ("htk", "none"): ({(5, 1): 0.1860776314, (60, 10): 0.8829870463, (200, 19): 0.9278925036}, 208.05732451739834),
}


@pytest.mark.parametrize(("scale", "norm"), list(LIBROSA))
def test_mel_filters_are_librosa_s(scale, norm):
    weights = mel_weights(bins=257, rate=16_000, bands=20, low_hz=50, high_hz=7000, scale=scale, triangles="hertz", norm=norm)
    entries, total = LIBROSA[scale, norm]
    for place, value in entries.items():
        assert weights[place] == pytest.approx(value, abs=1e-10)
    assert weights.sum() == pytest.approx(total, rel=1e-12)


def test_triangles_over_mel_are_straight_there():
    weights = mel_weights(bins=257, rate=16_000, bands=40, low_hz=20, high_hz=4000, scale="htk", triangles="mel", norm="none")
    low, high = (1127 * np.log(1 + f / 700) for f in (20, 4000))  # 2595 log10 and 1127 ln differ by a factor only
    width = (high - low) / 41
    for band in (0, 17, 39):
        centre = low + (band + 1) * width
        wanted = [max(0, 1 - abs(1127 * np.log(1 + row * 31.25 / 700) - centre) / width) for row in range(257)]
        np.testing.assert_allclose(weights[:, band], wanted, atol=1e-9)


@pytest.mark.parametrize(("norm", "scipy_norm"), [("ortho", "ortho"), ("none", None)])
def test_dct_is_scipy_s(norm, scipy_norm):
    values = np.random.default_rng(0).normal(size=(7, 40))
    found = run(values, ("dct", {"coefficients": 13, "norm": norm}))
    np.testing.assert_allclose(found, scipy.fft.dct(values, type=2, norm=scipy_norm)[:, :13], atol=1e-12)
    if norm == "none":
        np.testing.assert_allclose(run(values, ("dct", {"coefficients": 13, "norm": "htk"})), found / np.sqrt(80), atol=1e-12)


def test_the_whole_way_to_cepstral_coefficients_is_librosa_s():
    """librosa.feature.melspectrogram(n_fft=400, hop_length=160, n_mels=40, power=2, pad_mode="reflect") of the sound, 10 log10 of
    max(S, 1e-10), librosa.feature.mfcc(S=..., n_mfcc=13): frame 5, to six places.
    """
    steps = (
        ("stft", {"window_size": 400, "hop": 160, "pad": "reflect", "output": "power"}),
        ("mel", {"rate": 16_000, "bands": 40, "scale": "slaney", "norm": "area"}),
        ("log", {"unit": "decibel", "floor": "1e-10", "floor_by": "raising"}),
    )
    logs = run(SOUND, *steps)
    assert logs.shape == (11, 40)
    np.testing.assert_allclose(logs[5, :6], [-100, -100, -100, -100, 7.355384, 16.136063], atol=1e-4)
    wanted = [-538.210675, 33.800523, 25.168817, 76.983935, -52.186085, -49.440346, -7.485187, -111.522178, -60.714526]
    np.testing.assert_allclose(run(SOUND, *steps, ("dct", {"coefficients": 13}))[5, :9], wanted, atol=1e-3)


def test_log_adds_or_raises():
    values = np.array([0.0, 1.0])
    np.testing.assert_allclose(run(values, ("log", {"floor": "0.5"})), np.log([0.5, 1.5]))
    np.testing.assert_allclose(run(values, ("log", {"floor": "0.5", "floor_by": "raising"})), np.log([0.5, 1]))


def test_lengths_and_shapes():
    assert run(np.array([1, 2, 3], np.int16), ("fit_length", {"length": 5})).tolist() == [1, 2, 3, 0, 0]
    assert run(np.array([1, 2, 3], np.int16), ("fit_length", {"length": 2})).tolist() == [1, 2]
    assert run(np.zeros((3, 4)), ("transpose", {}), ("add_channel", {})).shape == (1, 4, 3)


@pytest.mark.parametrize(
    ("value", "step", "message"),
    [
        (np.zeros((2, 9)), ("stft", {"window_size": 4, "hop": 2}), r"one sound \[n\]"),
        (np.zeros(3), ("stft", {"window_size": 4, "hop": 2}), "less than one frame of 4"),
        (np.zeros(2), ("stft", {"window_size": 4, "hop": 2, "pad": "reflect"}), "too few to reflect"),
        (np.zeros(4), ("mel", {"rate": 100, "bands": 3}), "needs a spectrogram"),
        (np.zeros((2, 4)), ("dct", {"coefficients": 5}), "5 coefficients"),
        (np.zeros(4), ("transpose", {}), "needs a table"),
        (np.array(["a"]), ("to_float", {}), "expected numbers"),
    ],
)
def test_sounds_that_do_not_fit_are_refused(value, step, message):
    with pytest.raises(RequestError, match=message):
        run(value, step)
