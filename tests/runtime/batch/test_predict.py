"""Does a program in the same process get decoded answers for raw inputs?"""

import numpy as np
import pytest

from runtime.api import Runtime
from runtime.errors import RequestError


def test_predict_prepares_runs_watches_and_decodes(colours):
    pictures = [np.zeros((side, side + 1, 3), np.uint8) for side in (3, 9)]
    pictures[0][..., 2] = 255
    pictures[1][..., 0] = 200
    with Runtime(colours) as runtime:
        answer = runtime.predict(pictures)
        assert answer["label"].tolist() == ["blue", "red"]
        assert answer["score"][0] == pytest.approx(np.exp(4) / (np.exp(4) + 2))
        assert runtime.take_window().rows == 2
        with pytest.raises(RequestError, match="raw input 1: expected an image"):
            runtime.predict([pictures[0], pictures[0][0]])
