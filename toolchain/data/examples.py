"""What is one split while it is in memory?"""

import msgspec
import numpy as np


class Examples(msgspec.Struct, frozen=True):
    """inputs: one array per input tensor; targets: what is to be learned. The first axis of each counts examples."""

    inputs: dict[str, np.ndarray]
    targets: np.ndarray
