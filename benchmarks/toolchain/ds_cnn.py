"""A depthwise-separable network of 3,000 parameters for the digits: so small that int8 has nothing to save.

Source: Zhang et al. 2017, Hello Edge, cut to 16 channels.
"""

from torch import nn

CHANNELS, CLASSES, BLOCKS = 16, 10, 4


def network() -> nn.Module:
    """Logits float32[n, 10] of images float32[n, 1, 32, 32]."""
    layers = [nn.Conv2d(1, CHANNELS, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU()]
    for index in range(BLOCKS):
        layers += [
            nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2 if index == 0 else 1, padding=1, groups=CHANNELS, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, CLASSES))
