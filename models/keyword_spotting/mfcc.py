"""Mel-frequency cepstral coefficients of a second of speech, as MLPerf Tiny's keyword spotting takes them.

Source: mlcommons/tiny, benchmark/training/keyword_spotting/get_dataset.py (feature_type "mfcc"), which follows TensorFlow's
tf.signal: periodic Hann window, magnitudes, mel scale 1127 ln(1 + f / 700), logarithm, DCT-II scaled by 1 / sqrt(2 N).
"""

import numpy as np

RATE = 16_000  # samples a second
WINDOW, STRIDE, FFT = 480, 320, 512  # 30 ms and 20 ms; the next power of two
BANDS, LOWEST_HZ, HIGHEST_HZ = 40, 20.0, 4000.0
COEFFICIENTS = 10
FRAMES = 1 + (RATE - WINDOW) // STRIDE  # 49 in a second
FLOOR = 1e-6  # keeps the logarithm finite in silence


def mfcc(samples):
    """float32[16000] in -1..1 -> float32[49, 10]."""
    starts = STRIDE * np.arange(FRAMES)
    frames = samples[starts[:, np.newaxis] + np.arange(WINDOW)] * HANN
    magnitudes = np.abs(np.fft.rfft(frames, FFT))
    return (np.log(magnitudes @ MEL + FLOOR) @ DCT).astype(np.float32)


def mel_of(hertz):
    return 1127 * np.log1p(np.asarray(hertz) / 700)


def mel_weights():
    """Triangles, equally wide on the mel scale: float64[257, 40]."""
    bins = mel_of(np.linspace(0, RATE / 2, FFT // 2 + 1))[:, np.newaxis]
    edges = np.linspace(mel_of(LOWEST_HZ), mel_of(HIGHEST_HZ), BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))


def dct_weights():
    """float64[40, 10]."""
    band, coefficient = np.arange(BANDS)[:, np.newaxis], np.arange(COEFFICIENTS)
    return np.cos(np.pi * coefficient * (band + 0.5) / BANDS) * np.sqrt(2 / BANDS)


HANN = np.hanning(WINDOW + 1)[:-1]
MEL = mel_weights()
DCT = dct_weights()
