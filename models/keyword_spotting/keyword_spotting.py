"""Keyword spotting of MLPerf Tiny: Speech Commands v2 as it lies on disk, and DS-CNN, which tells ten words from everything else."""

import wave
from pathlib import Path

import numpy as np
from torch import nn

WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
SILENCE, UNKNOWN = len(WORDS), len(WORDS) + 1
NOISE = "_background_noise_"
RATE = 16_000  # samples a second
FRAMES, COEFFICIENTS = 49, 10  # of the MFCC that the recipe's processing makes of a second
REGIONS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}  # no split hears another's seconds of noise
WHERE = (
    "get speech_commands_v0.02.tar.gz from download.tensorflow.org/data, unpack it there (WORD/*.wav, validation_list.txt, "
    "testing_list.txt, _background_noise_/) or set data.options.path"
)


def splits(path="speech_commands_v0.02", seed=0):
    """Sounds of at most a second, read as they are asked for, with labels int64[n]; the splits are those of the data set's lists.

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
        spoken = clips + [(file, UNKNOWN) for file in others]
        silences = [silence(noises, REGIONS[name], generator) for _ in range(count)]
        labels = [label for _, label in spoken] + [SILENCE] * count
        result[name] = (sounds([file for file, _ in spoken], silences), np.array(labels))
    return result | {"classes": [*WORDS, "silence", "unknown"], "layout": "NCHW"}


def sounds(files, silences):
    """int16 samples of the files, then float32 samples of the silences, each a view into a noise and its volume."""
    yield from (read_wave(file) for file in files)
    yield from (noise / np.float32(32768) * volume for noise, volume in silences)


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
    """Samples int16 of a 16 kHz mono file."""
    try:
        with wave.open(str(file)) as sound:
            form = (sound.getframerate(), sound.getnchannels(), sound.getsampwidth())
            samples = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{file.parent.name}/{file.name} is not a readable WAV file: {error}") from error
    if form != (RATE, 1, 2):
        raise ValueError(f"{file.parent.name}/{file.name} is not 16 kHz, mono, 16 bit")
    return np.frombuffer(samples, "<i2")


def silence(noises, region, generator):
    """A random second from a region of one of the noises, and a random volume."""
    noise = noises[generator.integers(len(noises))]
    first, last = (int(share * len(noise)) for share in region)
    start = first + generator.integers(max(1, last - first - RATE))
    return noise[start:last][:RATE], generator.uniform()


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
