"""How does one batch run go, from a source to a result, and on again after a kill?"""

import math
import time
from pathlib import Path
from typing import Any

import msgspec

from runtime.backends.datatypes import NUMPY_TYPES
from runtime.batch.answers import Answerer, Answers
from runtime.batch.drift import DriftSummary
from runtime.batch.examples import sound_rate
from runtime.batch.job import Chunk, Job, Work
from runtime.batch.progress import Progress
from runtime.batch.rows import Rows, Source
from runtime.batch.sinks import check_out, write_rejects, write_result
from runtime.batch.sources import open_source
from runtime.contract.artifact import REFERENCE_NAME, Manifest
from runtime.errors import BatchError, RequestError
from runtime.monitor.monitor import MonitorLimits
from runtime.serving.models.model import ServedModel
from runtime.serving.models.repository import open_artifact

_CHUNK_BYTES = 16 << 20
_MOST_ROWS = 4096
"""Of a chunk where none is asked for: some milliseconds of work against its fsync, and a memory anyone has."""


class BatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a run. rows_per_batch: 0 for as many as fit 16 MB of input; strict: the first bad row ends it."""

    raw: bool = False
    rows_per_batch: int = 0
    resume: bool = False
    strict: bool = False
    drift: bool = False


def run_batch(directory: Path, source: Path, out: Path, options: BatchOptions) -> dict[str, Any]:
    """Run an artifact over a source and write the result. Returns rows, failed, seconds, rows_per_s, out and more.

    rows_per_s counts what this run computed; `resumed` what an earlier one had. Raises RequestError for what was asked, BatchError
    for what lies in the files, DiskFullError, ExtraMissingError, and what `open_artifact` raises.
    """
    started = time.monotonic()
    check_out(out)
    if options.rows_per_batch < 0:
        raise RequestError("--rows-per-batch must be at least 1")
    limits = MonitorLimits(cpu_permille=1000, rows_per_window=2**31) if options.drift else MonitorLimits()
    served = open_artifact(directory, limits=limits)
    try:
        manifest = served.manifest
        if options.drift and manifest.file(REFERENCE_NAME) is None:
            raise RequestError(f"{manifest.model} {manifest.version} has no {REFERENCE_NAME} to tell drift by")
        rows = open_source(source, rate=sound_rate(manifest))
        if rows.is_raw and not options.raw:
            raise RequestError(f"{source} holds pictures or sounds: add --raw, so that the manifest's steps prepare them")
        if not rows.total:
            raise RequestError(f"{source} has no rows")
        work = Work(out)
        wanted = Job(
            model=manifest.model, version=manifest.version, artifact=served.artifact.sha256, source=rows.identity,
            rows=rows.total, rows_per_batch=options.rows_per_batch or _rows_per_batch(manifest), raw=options.raw,
            watched=options.drift,
        )  # fmt: skip
        before = _earlier(work, wanted, options)
        if before is not None and before.finished:
            work.clear()
            return _summary(work, before, resumed=before.rows, seconds=time.monotonic() - started)
        job = before or wanted
        with work.held():
            if before is None:
                work.begin(job)
            resumed = _compute(served, rows, work, job, options)
            finished = _conclude(work, job, directory)
        work.clear()
    finally:
        served.retire()
    return _summary(work, finished, resumed=resumed, seconds=time.monotonic() - started)


def _earlier(work: Work, wanted: Job, options: BatchOptions) -> Job | None:
    """The job to go on with, or the finished one; None for a new one. Raises RequestError where neither may be."""
    begun, finished = work.begun(), work.finished()
    if not options.resume:
        if begun is not None:
            raise RequestError(f"{work.folder} holds an unfinished run: go on with --resume, or remove that folder")
        if work.out.exists():
            raise RequestError(f"{work.out} is there already; remove it, or name another")
        return None
    earlier = finished or begun
    if earlier is None:
        if work.out.exists():
            raise RequestError(f"{work.out} is there already, and no record of how it was made; remove it, or name another")
        return None
    for name in ("format", "model", "artifact", "source", "rows", "raw", "watched"):
        if getattr(earlier, name) != getattr(wanted, name):
            raise RequestError(f"{work.out}: the run to resume had another {name}; remove {work.folder} to begin again")
    if options.rows_per_batch not in (0, earlier.rows_per_batch):
        raise RequestError(f"{work.out}: the run to resume has {earlier.rows_per_batch} rows per batch")
    return earlier


def _compute(served: ServedModel, source: Source, work: Work, job: Job, options: BatchOptions) -> int:
    """Make the chunks that are not there. Returns how many rows were."""
    size = job.rows_per_batch
    index = work.done()
    already = min(index * size, job.rows)
    answerer = Answerer(served, raw=job.raw)
    progress = Progress(job.rows, already)
    served.monitor.take()
    try:
        for rows in source.read(already, size) if already < job.rows else ():
            answers = answerer.answer(rows)
            if answers.bad and options.strict:
                row, reason = next(iter(answers.bad.items()))
                raise BatchError(f"row {row}: {reason} (--strict; without it such rows go to {work.rejects.name})")
            work.write(index, _chunk(rows, answers, served, job))
            index += 1
            progress.at(rows.first + rows.count)
    finally:
        progress.end()
    if index != math.ceil(job.rows / size):
        raise BatchError(f"the source ended after {index} of {math.ceil(job.rows / size)} chunks: it has changed meanwhile")
    return already


def _chunk(rows: Rows, answers: Answers, served: ServedModel, job: Job) -> Chunk:
    names: tuple[str, ...] = ()
    bad_names: tuple[str, ...] = ()
    if rows.names:
        names = tuple(rows.names[row - rows.first] for row in answers.rows.tolist())
        bad_names = tuple(rows.names[row - rows.first] for row in answers.bad)
    return Chunk(answers, names, bad_names, served.monitor.take() if job.watched else None)


def _conclude(work: Work, job: Job, directory: Path) -> Job:
    """Write everything out; the result comes last, so that where it is all is."""
    chunks = math.ceil(job.rows / job.rows_per_batch)
    summary = DriftSummary()
    failed, first = 0, ""
    for chunk in work.chunks(chunks):
        failed += len(chunk.answers.bad)
        first = first or next(iter(chunk.answers.bad.values()), "")
        summary.add([chunk.window] if chunk.window is not None else [])
    write_rejects(work, chunks)
    if failed == job.rows:
        raise BatchError(f"none of the {job.rows} rows could be answered ({work.rejects.name} says why); the first: {first}")
    drift = summary.against(directory) if job.watched else {}
    finished = msgspec.structs.replace(job, failed=failed, finished=True, drift=drift)
    work.finish(finished)
    write_result(work, chunks)
    return finished


def _summary(work: Work, job: Job, *, resumed: int, seconds: float) -> dict[str, Any]:
    computed = job.rows - resumed
    summary = {
        "rows": job.rows, "failed": job.failed, "resumed": resumed, "seconds": round(seconds, 3),
        "rows_per_s": round(computed / max(seconds, 1e-9), 1), "out": str(work.out),
        "rejects": str(work.rejects) if job.failed else "",
    }  # fmt: skip
    return summary | ({"drift": job.drift} if job.watched else {})


def _rows_per_batch(manifest: Manifest) -> int:
    """So many that the inputs take 16 MB; free sizes count as 1."""
    row = sum(
        math.prod(max(1, size) for size in spec.shape[1:]) * NUMPY_TYPES[spec.datatype].itemsize for spec in manifest.inputs
    )
    return max(1, min(_MOST_ROWS, _CHUNK_BYTES // max(1, row)))
