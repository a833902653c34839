"""Does torch.compile pay for this training?

Compiling takes longer than most small trainings. So the rule of "auto" is: nothing is tried where the run is too short to earn
the compiler's time back; else the network is compiled, both are timed on the run's own batches, and the rest of the run goes
with what is faster by a clear margin. By then the compiler has been paid either way.
"""

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from toolchain.errors import NetworkError
from toolchain.pipeline.progress import Progress
from toolchain.train.parallel import Crew

Trial = Callable[[Any], None]
"""Runs the forward and backward pass of the run's largest and smallest batch with the network it is given."""
WORTH_S = 60.0
"""Runs whose steps take less, in seconds, are not tried. On 2 cores compiling models/digits took 22 s and made its steps 1.16x as
fast, a perceptron's 0.70x; below a minute even 1.5x would not pay."""
MARGIN = 0.95
"""Compiled steps must take less than this share of the eager ones: a result that other machines can repeat is worth the rest."""
_TRIALS = 5


def compiled(network: nn.Module, trial: Trial) -> Any:
    """The compiled network, with everything compiled that `trial` runs. Raises NetworkError naming the reason when it cannot be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice about its own internals
            fast = torch.compile(network)
            trial(fast)
    except Exception as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise NetworkError(f"torch.compile cannot compile the network: {first}") from error
    return fast


def faster(network: nn.Module, trial: Trial, trials: int, crew: Crew, progress: Progress) -> Any:
    """The network as it is or compiled, whichever brings the rest of the run to its end sooner.

    trials: how many runs of `trial` that rest amounts to. All processes of the crew decide alike, by the times of the first.
    """
    eager_s = crew.agree(_seconds(trial, network))
    if eager_s * trials < WORTH_S:
        progress.note(f"torch.compile was not tried: all training steps together take about {eager_s * trials:.0f} s")
        return network
    started = time.monotonic()
    try:
        fast = compiled(network, trial)
    except NetworkError as error:
        progress.note(f"{error}; training goes on without it")
        return network
    spent_s = time.monotonic() - started
    fast_s = crew.agree(_seconds(trial, fast))
    is_kept = pays(eager_s, fast_s)
    progress.note(
        f"torch.compile took {spent_s:.0f} s and makes steps {eager_s / fast_s:.2f}x as fast: {'kept' if is_kept else 'not kept'}"
    )
    return fast if is_kept else network


def pays(eager_s: float, fast_s: float) -> bool:
    return fast_s < MARGIN * eager_s


def _seconds(trial: Trial, network: Any) -> float:
    """The fastest of a few runs: what disturbs a measurement only ever makes it longer."""
    times = []
    trial(network)
    for _ in range(_TRIALS):
        started = time.perf_counter()
        trial(network)
        times.append(time.perf_counter() - started)
    return min(times)
