"""How does a sound become a tensor? Samples are [n], spectrograms [frames, bins]; computed in float64.

stft, mel and log make a log-mel spectrogram; a dct behind them makes mel-frequency cepstral coefficients.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from runtime.errors import RequestError

Floats = NDArray[np.float64]

_FRAMES_AT_ONCE = 1024
_WINDOWS = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46), "rectangular": (1.0, 0.0)}


def fit_length(samples: np.ndarray, *, length: int) -> np.ndarray:
    """The first samples, or all and zeros behind them."""
    _require_samples(samples)
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def stft(samples: np.ndarray, *, window_size: int, hop: int, fft_size: int, window: str, output: str, pad: str) -> Floats:
    """|FFT| or |FFT|**2 of windowed frames: float64[frames, fft_size / 2 + 1], frames = 1 + (n - window_size) // hop after padding.

    The window is periodic, a - b cos(2 pi k / window_size): hann 0.5, 0.5; hamming 0.54, 0.46. Zeros fill a frame up to
    fft_size from behind (TensorFlow) where torch centres it: magnitudes are the same.
    Source: Oppenheim and Schafer, Discrete-Time Signal Processing, 10.3. Raises RequestError when not one frame fits.
    """
    _require_samples(samples)
    values = samples.astype(np.float64)
    half = window_size // 2
    if pad != "none":
        if pad == "reflect" and len(values) <= half:
            raise RequestError(f"{len(values)} samples are too few to reflect {half}")
        values = np.pad(values, half, mode="reflect" if pad == "reflect" else "constant")
    if len(values) < window_size:
        raise RequestError(f"{len(values)} samples are less than one frame of {window_size}")
    weights = _window(window, window_size)
    frames = np.lib.stride_tricks.sliding_window_view(values, window_size)[::hop]
    bins = (fft_size or window_size) // 2 + 1
    result = np.empty((len(frames), bins))
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        part = np.abs(np.fft.rfft(frames[start : start + _FRAMES_AT_ONCE] * weights, fft_size or window_size))
        result[start : start + _FRAMES_AT_ONCE] = part * part if output == "power" else part
    return result


def mel(
    spectrogram: np.ndarray, *, rate: int, bands: int, low_hz: float, high_hz: float, scale: str, triangles: str, norm: str
) -> Floats:
    """Sums of a spectrogram's bins under triangles evenly spaced in mel: float64[frames, bands].

    Scales: htk, 2595 log10(1 + f / 700); slaney, 3 f / 200 up to 1 kHz, then 27 per factor 6.4. norm "area": triangles of
    area 1 over hertz. Source: HTK book 5.4; Slaney, Auditory Toolbox (1998), as librosa.filters.mel; TensorFlow's
    linear_to_mel_weight_matrix for triangles over mel.
    """
    _require_table(spectrogram, "mel")
    weights = mel_weights(
        bins=spectrogram.shape[1], rate=rate, bands=bands, low_hz=low_hz, high_hz=high_hz or rate / 2, scale=scale,
        triangles=triangles, norm=norm,
    )  # fmt: skip
    result: Floats = spectrogram.astype(np.float64) @ weights
    return result


def log(values: np.ndarray, *, floor: float, floor_by: str, unit: str) -> Floats:
    """ln or 10 log10 of x + floor, or of max(x, floor)."""
    numbers = values.astype(np.float64)
    kept = numbers + floor if floor_by == "adding" else np.maximum(numbers, floor)
    with np.errstate(invalid="ignore", divide="ignore"):  # what is negative has no logarithm: NaN, as NaN has
        result: Floats = np.log(kept) if unit == "natural" else 10 * np.log10(kept)
    return result


def dct(values: np.ndarray, *, coefficients: int, norm: str) -> Floats:
    """y[k] = 2 sum_i x[i] cos(pi k (2 i + 1) / 2 n), the first of them; ortho: y[0] / sqrt(4 n), the rest / sqrt(2 n); htk: all / sqrt(2 n).

    Source: scipy.fft.dct type 2 ("none" is its norm None); TensorFlow's mfccs_from_log_mel_spectrograms is "htk".
    """
    if values.ndim == 0 or coefficients > values.shape[-1]:
        raise RequestError(f"{coefficients} coefficients cannot be had of an array {list(values.shape)}")
    result: Floats = values.astype(np.float64) @ _dct_weights(values.shape[-1], coefficients, norm)
    return result


@lru_cache(maxsize=16)
def mel_weights(
    *, bins: int, rate: int, bands: int, low_hz: float, high_hz: float, scale: str, triangles: str, norm: str
) -> Floats:
    """The filter bank: float64[bins, bands], for bins evenly from 0 Hz to half the rate."""
    to_mel, to_hertz = (_htk_mel, _htk_hertz) if scale == "htk" else (_slaney_mel, _slaney_hertz)
    hertz = np.linspace(0, rate / 2, bins)[:, np.newaxis]
    mels = np.linspace(to_mel(np.array(low_hz)), to_mel(np.array(high_hz)), bands + 2)
    corners = to_hertz(mels)
    places, edges = (hertz, corners) if triangles == "hertz" else (to_mel(hertz), mels)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    weights: Floats = np.maximum(0, np.minimum((places - lower) / (centre - lower), (upper - places) / (upper - centre)))
    return weights * 2 / (corners[2:] - corners[:-2]) if norm == "area" else weights


@lru_cache(maxsize=16)
def _window(name: str, size: int) -> Floats:
    constant, swing = _WINDOWS[name]
    return constant - swing * np.cos(2 * np.pi * np.arange(size) / size)


@lru_cache(maxsize=16)
def _dct_weights(size: int, coefficients: int, norm: str) -> Floats:
    places, orders = np.arange(size)[:, np.newaxis], np.arange(coefficients)
    weights: Floats = 2 * np.cos(np.pi * orders * (2 * places + 1) / (2 * size))
    if norm == "none":
        return weights
    weights /= np.sqrt(2 * size)
    if norm == "ortho":
        weights[:, 0] /= np.sqrt(2)
    return weights


def _htk_mel(hertz: Floats) -> Floats:
    return 2595 * np.log10(1 + hertz / 700)


def _htk_hertz(mels: Floats) -> Floats:
    return 700 * (10 ** (mels / 2595) - 1)


def _slaney_mel(hertz: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(hertz / 1000) / np.log(6.4))


def _slaney_hertz(mels: Floats) -> Floats:
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


def _require_samples(samples: np.ndarray) -> None:
    if samples.ndim != 1 or samples.dtype.kind not in "iuf":
        raise RequestError(f"expected the samples of one sound [n], found {samples.dtype}{list(samples.shape)}")


def _require_table(values: np.ndarray, step: str) -> None:
    if values.ndim != 2 or values.shape[1] < 2:
        raise RequestError(f"{step} needs a spectrogram [frames, bins], found {list(values.shape)}")
