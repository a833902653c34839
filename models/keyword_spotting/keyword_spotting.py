"""Keyword spotting of MLPerf Tiny: Speech Commands v2 as it lies on disk, and DS-CNN, which tells ten words from everything else."""

import wave
from pathlib import Path

import numpy as np
from mfcc import COEFFICIENTS, FRAMES, RATE, mfcc
from torch import nn

WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
SILENCE, UNKNOWN = len(WORDS), len(WORDS) + 1
NOISE = "_background_noise_"
REGIONS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}  # no split hears another's seconds of noise
WHERE = (
    "get speech_commands_v0.02.tar.gz from download.tensorflow.org/data, unpack it there (WORD/*.wav, validation_list.txt, "
    "testing_list.txt, _background_noise_/) or set data.options.path"
)


def splits(path="speech_commands_v0.02", seed=0):
    """MFCC float32[n, 1, 49, 10] with labels int64[n]; the splits are those of the data set's two lists.

    Silence and unknown words come as often as one of the ten words does on average, as in Warden 2018, section 5.
    """
    root = Path(__file__).parent / path
    if not (root / "testing_list.txt").is_file():
        raise FileNotFoundError(f"{root} holds no Speech Commands: {WHERE}")
    generator = np.random.default_rng(seed)
    known, unknown = listed(root)
    noises = [read_wave(file) for file in sorted((root / NOISE).glob("*.wav"))]
    result = {}
    for name, clips in known.items():
        count = round(len(clips) / len(WORDS))
        others = [unknown[name][row] for row in generator.permutation(len(unknown[name]))[:count]]
        sounds = [(second(read_wave(file)), label) for file, label in clips + [(file, UNKNOWN) for file in others]]
        sounds += [(silence(noises, REGIONS[name], generator), SILENCE) for _ in range(count)]
        features = np.stack([mfcc(samples) for samples, _ in sounds])[:, np.newaxis]
        result[name] = (features, np.array([label for _, label in sounds]))
    return result | {"classes": [*WORDS, "silence", "unknown"], "layout": "NCHW"}


def listed(root):
    """The clips of the ten words with their labels, and those of all other words, by split."""
    lists = {name: set((root / f"{name}_list.txt").read_text().split()) for name in ("validation", "testing")}
    known, unknown = ({"train": [], "validation": [], "test": []} for _ in range(2))
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name.startswith((".", "_")):
            continue
        for file in sorted(folder.glob("*.wav")):
            entry = f"{folder.name}/{file.name}"
            split = "test" if entry in lists["testing"] else "validation" if entry in lists["validation"] else "train"
            if folder.name in WORDS:
                known[split].append((file, WORDS.index(folder.name)))
            else:
                unknown[split].append(file)
    return known, unknown


def read_wave(file):
    """Samples in -1..1 of a 16 kHz mono file of 16-bit numbers."""
    try:
        with wave.open(str(file)) as sound:
            form = (sound.getframerate(), sound.getnchannels(), sound.getsampwidth())
            samples = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{file.parent.name}/{file.name} is not a readable WAV file: {error}") from error
    if form != (RATE, 1, 2):
        raise ValueError(f"{file.parent.name}/{file.name} is not 16 kHz, mono, 16 bit")
    return np.frombuffer(samples, "<i2").astype(np.float32) / 32768


def second(samples):
    """Cut, or filled up with silence, to one second."""
    return np.pad(samples[:RATE], (0, max(0, RATE - len(samples))))


def silence(noises, region, generator):
    """A random second from a region of one of the noises, at a random volume."""
    noise = noises[generator.integers(len(noises))]
    first, last = (int(share * len(noise)) for share in region)
    start = first + generator.integers(max(1, last - first - RATE))
    return second(noise[start:last]) * generator.uniform()


class Separable(nn.Sequential):
    """A depthwise 3x3 convolution, then a pointwise one. Source: Zhang et al. 2017, Hello Edge."""

    def __init__(self, channels):
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )


def network(channels=64, blocks=4):
    """DS-CNN as MLPerf Tiny trains it: 24,908 numbers, running statistics of the normalisation included; logits float32[n, 12]."""
    return nn.Sequential(
        nn.ZeroPad2d((1, 1, 4, 5)),  # TensorFlow's "same" for a 10x4 kernel with stride 2 over 49x10
        nn.Conv2d(1, channels, (10, 4), stride=2),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Dropout(0.2),
        *(Separable(channels) for _ in range(blocks)),
        nn.Dropout(0.4),
        nn.AvgPool2d((-(-FRAMES // 2), -(-COEFFICIENTS // 2))),
        nn.Flatten(),
        nn.Linear(channels, len(WORDS) + 2),
    )
