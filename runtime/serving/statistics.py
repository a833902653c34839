"""What has each model done so far, in the form of Triton's statistics extension?

Source: Triton's extension_statistics.md. Counts begin when a version is opened. Time is measured in the engine alone, so it
is told as `compute_infer` and as the whole of `success`; what is not measured (`queue`, `compute_input`, `compute_output`,
the time of failures, the moment of the last inference) is 0. Requests that were joined in one inference count one execution
each, and each its whole time. There is no response cache.
"""

from typing import Any

from runtime.serving.describe import find
from runtime.serving.models.model import ServedModel
from runtime.serving.models.repository import Repository


def model_statistics(repository: Repository, model: str = "", release: str = "") -> dict[str, Any]:
    """Of every version that serves, of those of one model, or of one version. Raises ModelNotFoundError."""
    if release:
        chosen = [find(repository, model, release)]
    else:
        if model:
            repository.get(model)
        chosen = [served for served in repository.models() if model in ("", served.manifest.model)]
    return {"model_stats": [_statistics(served) for served in chosen]}


def _statistics(served: ServedModel) -> dict[str, Any]:
    totals = served.monitor.totals()
    answered = totals.requests - totals.errors
    nothing = {"count": 0, "ns": 0}
    spent = {"count": answered, "ns": totals.latency_sum_ns}
    return {
        "name": served.manifest.model,
        "version": served.manifest.version,
        "last_inference": 0,
        "inference_count": totals.examples,
        "execution_count": answered,
        "inference_stats": {
            "success": spent,
            "fail": {"count": totals.errors, "ns": 0},
            "queue": nothing,
            "compute_input": nothing,
            "compute_infer": spent,
            "compute_output": nothing,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [],
    }
