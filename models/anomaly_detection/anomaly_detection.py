"""Anomaly detection of MLPerf Tiny: the sound of toy cars as DCASE 2020 task 2 stores it, and an autoencoder that knows only sound ones.

What it cannot reconstruct it has not heard in training: the error is the score, and the network itself computes it.
"""

import re
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from logmel import BANDS, RATE, SAMPLES, log_mel
from torch import nn

FRAMES = 5  # of the spectrogram, side by side: 640 numbers
WHERE = (
    "get dev_data_ToyCar.zip from zenodo.org/records/3678171, unpack it there "
    "(train/normal_id_01_00000000.wav, test/normal_id_..., test/anomaly_id_...) or set data.options.path"
)


def splits(path="ToyCar", validation=0.5, limit=0, seed=0):
    """Spectrograms float32[n, 1, 128, 200] in decibels, one a clip, with labels int64[n]: 0 normal, 1 anomaly.

    Training clips are all normal. The official test clips steer or judge: `validation` is the share of each machine's normal and
    of its anomalous clips that steers. limit: at most so many clips a folder, 0 for all. Test clips can be judged by machine.
    """
    root = Path(__file__).parent / path
    if not (root / "train").is_dir() or not (root / "test").is_dir():
        raise FileNotFoundError(f"{root} holds no ToyCar: {WHERE}")
    generator = np.random.default_rng(seed)
    parts = {"train": clips_in(root / "train", limit, generator), "validation": [], "test": []}
    groups = {}
    for clip in clips_in(root / "test", limit, generator):
        groups.setdefault(clip[1:], []).append(clip)
    for group in groups.values():
        steering = generator.permutation(len(group)) < round(validation * len(group))
        for clip, steers in zip(group, steering, strict=True):
            parts["validation" if steers else "test"].append(clip)
    result = {name: examples(clips) for name, clips in parts.items()}
    return result | {"layout": "NCHW", "slices": {"machine": {"test": [machine for _, _, machine in parts["test"]]}}}


def clips_in(folder, limit, generator):
    """(file, label, machine) of each clip, sorted by name."""
    named = [(re.fullmatch(r"(normal|anomaly)_(id_\d+)_\d+\.wav", file.name), file) for file in sorted(folder.iterdir())]
    clips = [(file, int(match[1] == "anomaly"), match[2]) for match, file in named if match]
    if not clips:
        raise FileNotFoundError(f"{folder} holds no clip named as normal_id_01_00000000.wav: {WHERE}")
    return clips if not limit else [clips[row] for row in sorted(generator.permutation(len(clips))[:limit])]


def examples(clips):
    return np.stack([log_mel(read_wave(file)) for file, _, _ in clips])[:, np.newaxis], np.array([label for _, label, _ in clips])


def read_wave(file):
    """Samples in -1..1 of a 16 kHz mono file of 16-bit numbers."""
    try:
        with wave.open(str(file)) as sound:
            form = (sound.getframerate(), sound.getnchannels(), sound.getsampwidth())
            samples = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{file.parent.name}/{file.name} is not a readable WAV file: {error}") from error
    if form != (RATE, 1, 2) or len(samples) < 2 * SAMPLES:
        raise ValueError(f"{file.parent.name}/{file.name} is not 16 kHz, mono, 16 bit and at least 8 seconds long")
    return np.frombuffer(samples, "<i2").astype(np.float32) / 32768


class Autoencoder(nn.Module):
    """640-128-128-128-128-8-128-128-128-128-640 over windows of five frames; a clip's score is the mean over its windows.

    269,992 numbers, running statistics of the normalisation included. Source: mlcommons/tiny,
    benchmark/training/anomaly_detection/keras_model.py, after Koizumi et al. 2020.
    """

    def __init__(self, hidden=128, code=8):
        super().__init__()
        sizes = (FRAMES * BANDS, *[hidden] * 4, code, *[hidden] * 4)
        layers = []
        for inside, outside in pairwise(sizes):
            layers += [nn.Linear(inside, outside), nn.BatchNorm1d(outside), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, FRAMES * BANDS))

    def forward(self, x):
        """Decibels float32[n, 1, 128, frames], any number of frames from five -> mean squared error float32[n, 1]."""
        count = x.shape[-1] - FRAMES + 1
        windows = torch.cat([x[:, 0, :, first : first + count] for first in range(FRAMES)], dim=1)
        rows = windows.transpose(1, 2).reshape(-1, FRAMES * BANDS)
        errors = (self.layers(rows) - rows).square().mean(dim=1)
        return errors.reshape(-1, count).mean(dim=1, keepdim=True)


def network(hidden=128, code=8):
    return Autoencoder(hidden, code)


def loss(scores, labels):
    """The reconstruction error itself; anomalies, which only validation has, do not count."""
    return scores[labels == 0].mean()
