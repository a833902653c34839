"""For a process of its own: a training stage that ends itself with SIGKILL after its third epoch, before that one is written.

`python -m tests.toolchain.train.dying ROOT`
"""

import os
import signal
import sys
from pathlib import Path

from tests.toolchain.train.conftest import Bench
from toolchain.pipeline.progress import Silent
from toolchain.train import checkpoint


class Dies(Silent):
    def tick(self, done: int, of: int, text: str) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    checkpoint.EVERY_S = 0
    bench = Bench(Path(sys.argv[1]))
    bench.progress = Dies()
    bench.train("train.epochs=4")
