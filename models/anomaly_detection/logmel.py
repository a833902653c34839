"""The logarithmic mel spectrogram of a machine's sound, as the DCASE 2020 baseline and MLPerf Tiny take it.

Source: mlcommons/tiny, benchmark/training/anomaly_detection/common.py (file_to_vector_array): librosa's power spectrogram with
periodic Hann windows centred on their frame, its mel scale after Slaney (linear below 1 kHz) with triangles of equal area,
10 log10 of the power, and of a clip the frames 50 to 249 alone.
"""

import numpy as np

RATE = 16_000  # samples a second
FFT, HOP, BANDS = 1024, 512, 128
FIRST, FRAMES = 50, 200
FLOOR = np.finfo(float).eps
SAMPLES = (FIRST + FRAMES - 1) * HOP + FFT // 2  # what a clip must hold: 8 seconds


def log_mel(samples):
    """float32[at least 128000] in -1..1 -> decibels float32[128, 200]."""
    starts = (FIRST + np.arange(FRAMES)) * HOP - FFT // 2
    frames = samples[starts[:, np.newaxis] + np.arange(FFT)] * HANN
    power = np.abs(np.fft.rfft(frames)) ** 2
    return (10 * np.log10(power @ MEL + FLOOR)).T.astype(np.float32)


def hertz_of(mel):
    """Slaney's scale: 3 mel are 200 Hz up to 1 kHz (15 mel), beyond it 27 mel are a factor of 6.4."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def mel_weights():
    """float64[513, 128] over 0 Hz to half the rate."""
    highest = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    edges = hertz_of(np.linspace(0, highest, BANDS + 2))
    bins = np.linspace(0, RATE / 2, FFT // 2 + 1)[:, np.newaxis]
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.maximum(0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))
    return triangles * 2 / (upper - lower)


HANN = np.hanning(FFT + 1)[:-1]
MEL = mel_weights()
