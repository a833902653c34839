"""Small sound data sets in the form the official ones have on disk: WAV files of 16 kHz, mono, 16 bit."""

import wave
from pathlib import Path

import numpy as np

RATE = 16_000
WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")


def write_wave(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    """samples: float in -1..1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def tone(hertz: float, seconds: float, generator: np.random.Generator, noise: float = 0.01) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.5 * np.sin(2 * np.pi * hertz * time + generator.uniform(0, 6)) + noise * generator.normal(size=len(time))


def speech_commands(root: Path, per_split: int = 2) -> None:
    """Every word a tone of its own pitch; "cat" and "dog" are unknown; some clips are shorter than a second, as in the original."""
    generator = np.random.default_rng(0)
    lists: dict[str, list[str]] = {"train": [], "validation": [], "testing": []}
    for number, word in enumerate((*WORDS, "cat", "dog")):
        for index, split in enumerate(name for name in lists for _ in range(per_split)):
            name = f"{word}/{index:08x}_nohash_0.wav"
            write_wave(root / name, tone(200 + 200 * number, 1.0 if index % 2 else 0.8, generator))
            lists[split].append(name)
    for split in ("validation", "testing"):
        (root / f"{split}_list.txt").write_text("".join(f"{name}\n" for name in lists[split]))
    for name in ("running_tap", "white_noise"):
        write_wave(root / "_background_noise_" / f"{name}.wav", 0.1 * generator.normal(size=12 * RATE))
    (root / "README.md").write_text("Speech Commands Data Set v0.02\n")


def toy_car(root: Path, train: int = 4, test: int = 4) -> None:
    """Two machines; sound ones hum at 400 Hz, broken ones whistle at 3 kHz on top."""
    generator = np.random.default_rng(0)
    for machine in ("id_01", "id_02"):
        for index in range(train):
            write_wave(root / "train" / f"normal_{machine}_{index:08}.wav", tone(400, 8.2, generator))
        for label in ("normal", "anomaly"):
            for index in range(test):
                whistle = 0.3 * tone(3000, 8.2, generator) if label == "anomaly" else 0
                write_wave(root / "test" / f"{label}_{machine}_{index:08}.wav", tone(400, 8.2, generator) + whistle)
