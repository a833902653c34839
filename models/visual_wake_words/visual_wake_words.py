"""Visual wake words of MLPerf Tiny: MobileNetV1 with a quarter of its channels, which tells whether a person is in the picture.

The data needs no code: vw_coco2014_96 is a folder of images per class, which the built-in source reads.
"""

from torch import nn

# Output channels and stride of each separable block. Source: Howard et al. 2017, MobileNets, table 1.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def network(width=0.25, classes=2):
    """For float32[n, 3, 96, 96] in 0..1; logits float32[n, 2].

    221,794 numbers at width 0.25, running statistics of the normalisation included, as in mlcommons/tiny,
    benchmark/training/visual_wake_words/vww_model.py; strided convolutions pad evenly here, TensorFlow's at the end.
    """
    inside = int(32 * width)
    layers = [nn.Conv2d(3, inside, 3, stride=2, padding=1), nn.BatchNorm2d(inside), nn.ReLU()]
    for channels, stride in BLOCKS:
        outside = int(channels * width)
        layers += [
            nn.Conv2d(inside, inside, 3, stride, padding=1, groups=inside),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, outside, 1),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        ]
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))
