"""Paints coloured shapes into images/{circle,square,triangle}/, so that the recipe can be tried without a data set of one's own."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--count", type=int, default=120, help="images of each shape")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    for shape in SHAPES:
        folder = arguments.to / shape
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(arguments.count):
            paint(shape, arguments.size, generator).save(folder / f"{index:03}.png")
    print(f"{len(SHAPES) * arguments.count} images in {arguments.to}")


def paint(shape, size, generator):
    """One shape of a random colour, place and size on a dim, noisy ground."""
    ground = generator.integers(0, 90, (size, size, 3)).astype(np.uint8)
    image = Image.fromarray(ground)
    radius = generator.uniform(0.18, 0.35) * size
    centre = generator.uniform(radius, size - radius, 2)
    colour = tuple(generator.integers(110, 256, 3).tolist())
    box = [*(centre - radius), *(centre + radius)]
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.regular_polygon((*centre, radius), 3, fill=colour)
    return image


if __name__ == "__main__":
    main()
