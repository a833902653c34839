"""Where is every build remembered, and which of its models is the one to ship?

MLflow, on a local SQLite file unless a server is configured (setting `tracking`). One experiment a model, one run a
build; a release becomes a version of the registered model, found by its tags. Models are referenced by their files and
digests: no pickle is written or read.
"""

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from runtime.contract.artifact import MANIFEST_NAME, version_key
from toolchain.config import load_config
from toolchain.errors import TrackingError, UsageError
from toolchain.offline import keep_offline
from toolchain.pipeline.record import BuildResult, TargetResult, TuningResult, VariantResult

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

OFF = "off"
PREFIX = "edgewright."
PARAMETER_LIMIT = 6000
"""MLflow's own limit on a parameter's text; longer values are cut, and stand whole in report.json."""

MLFLOW_PARENT = "mlflow.parentRunId"
"""The tag by which MLflow nests runs; its own constant lives in a module it does not publish."""
_OBJECTIVES = {"latency": "latency_ns", "size": "size_bytes"}

_UNNAMEABLE = re.compile(r"[^\w\-. :/]", re.ASCII)
"""What MLflow allows in no name of a parameter or metric."""
DIGEST_LIMIT = 32
"""MLflow takes at most 36 characters as a dataset's digest; the whole fingerprint is a tag of the run."""


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """An alias was moved. before: the release it named until now, "" for none."""

    model: str
    version: str
    alias: str
    registry_version: str
    before: str


def track(result: BuildResult) -> dict[str, str]:
    """Log one build and register its release; returns ids {experiment, run, model_version}, empty when tracking is off.

    Takes 5 to 7 s, nearly all of it MLflow's import and, the first time, making its tables. Raises TrackingError when the
    store cannot be written; artifacts are untouched by that.
    """
    store = load_config()["tracking"].value
    if store == OFF:
        return {}
    with _client(store) as client:
        experiment = _experiment(client, result.recipe.model.name, store)
        run = client.create_run(
            experiment, run_name=f"{result.recipe.model.name} {result.recipe.model.version}", tags=_tags(result)
        )
        run_id = run.info.run_id
        try:
            _log_numbers(client, run_id, result)
            _log_files(client, run_id, result)
            version = _register(client, run, result)
            if result.tuning is not None:
                _log_search(client, run, result.tuning, result.recipe.metrics[0].name)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
    return {"experiment": experiment, "run": run_id, "model_version": str(version.version)}


def promote(model: str, version: str, alias: str) -> Promotion:
    """Let `alias` name this release in the registry. Raises UsageError when it was never tracked, TrackingError otherwise."""
    store = load_config()["tracking"].value
    if store == OFF:
        raise UsageError("tracking is off: set EDGEWRIGHT_TRACKING, or `tracking` in toolchain.toml, to a store")
    with _client(store) as client:
        versions = [found for found in client.search_model_versions(f"name='{model}'") if f"{PREFIX}version" in found.tags]
        if not versions:
            raise UsageError(f"no build of {model!r} is registered in {_shown(store)}")
        fitting = [found for found in versions if found.tags[f"{PREFIX}version"] == version]
        if not fitting:
            known = sorted({found.tags[f"{PREFIX}version"] for found in versions}, key=version_key)
            raise UsageError(f"{model} {version} is not registered; known: {', '.join(known)}")
        newest = max(fitting, key=lambda found: int(found.version))
        before = _holder(client, model, alias)
        client.set_registered_model_alias(model, alias, newest.version)
    return Promotion(model=model, version=version, alias=alias, registry_version=str(newest.version), before=before)


@contextmanager
def _client(store: str) -> "Iterator[MlflowClient]":
    """MLflow's client on this store; its errors become TrackingError. Makes the folder of a local store."""
    keep_offline()
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise TrackingError(f"mlflow cannot be imported: {error}; set EDGEWRIGHT_TRACKING=off to build without it") from error
    # On first use MLflow and alembic announce every table they make, which is no news to the user of a build.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        if folder := _local_folder(store):
            folder.mkdir(parents=True, exist_ok=True)
        yield MlflowClient(tracking_uri=store, registry_uri=store)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrackingError(f"tracking store {_shown(store)}: {reason}; EDGEWRIGHT_TRACKING=off builds without it") from error


def _experiment(client: "MlflowClient", name: str, store: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    folder = _local_folder(store)
    return str(client.create_experiment(name, (folder / "artifacts" / name).as_uri() if folder else None))


def _tags(result: BuildResult) -> dict[str, str]:
    """Lineage: what went in and what came out, by digest."""
    tags = {
        f"{PREFIX}version": result.recipe.model.version,
        f"{PREFIX}build": result.build,
        f"{PREFIX}recipe": result.recipe.sha256,
        f"{PREFIX}data": result.data.fingerprint,
        "mlflow.source.name": result.recipe_path,
    }
    for target in result.targets:
        tags[f"{PREFIX}manifest.{target.target}"] = target.manifest_sha256
        tags[f"{PREFIX}chosen.{target.target}"] = target.chosen
    return tags


def _log_numbers(client: "MlflowClient", run_id: str, result: BuildResult) -> None:
    from mlflow.entities import Dataset, DatasetInput, Param

    parameters = _flat(msgspec.to_builtins(result.recipe)) | {
        f"version.{name}": text for name, text in result.environment.items()
    }
    client.log_batch(
        run_id,
        metrics=_metrics(result),
        params=[Param(_nameable(name), value[:PARAMETER_LIMIT]) for name, value in parameters.items()],
    )
    source = result.recipe.data.source
    sizes = json.dumps(result.data.sizes, sort_keys=True)
    digest = result.data.fingerprint[:DIGEST_LIMIT]
    dataset = Dataset(source, digest, source_type="code", source=json.dumps({"source": source}), profile=sizes)
    client.log_inputs(run_id, datasets=[DatasetInput(dataset)])


def _log_search(client: "MlflowClient", build: "Run", tuning: TuningResult, metric: str) -> None:
    """The search as a run below the build's, each trial one below that: settings as parameters, objectives as metrics."""
    from mlflow.entities import Metric, Param, RunTag

    def start(name: str, parent: "Run", tags: Mapping[str, str]) -> "Run":
        return client.create_run(
            build.info.experiment_id, run_name=name, tags={MLFLOW_PARENT: parent.info.run_id, **tags}
        )  # fmt: skip

    now = int(time.time() * 1000)
    search = start("search", build, {f"{PREFIX}sampler": tuning.sampler, f"{PREFIX}best": str(tuning.best)})
    for trial in tuning.trials:
        run = start(
            f"trial {trial.number}", search, {f"{PREFIX}state": trial.state, f"{PREFIX}violated": ", ".join(trial.violated)}
        )
        names = [metric if objective == "metric" else _OBJECTIVES[objective] for objective in tuning.objectives]
        figures = {**dict(zip(names, trial.values, strict=False)), "seconds": trial.seconds}
        tags = [RunTag(f"{PREFIX}error", trial.error)] if trial.error else []
        if trial.same_as is not None:
            tags.append(RunTag(f"{PREFIX}same_as", str(trial.same_as)))
        client.log_batch(
            run.info.run_id, tags=tags,
            metrics=[Metric(_nameable(name), value, now, 0) for name, value in figures.items()],
            params=[Param(_nameable(key), str(value)[:PARAMETER_LIMIT]) for key, value in trial.settings.items()],
        )  # fmt: skip
        client.set_terminated(run.info.run_id, {"complete": "FINISHED", "failed": "FAILED"}.get(trial.state, "KILLED"))
    client.set_terminated(search.info.run_id)


def _metrics(result: BuildResult) -> "list[Metric]":
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    figures = {"build_seconds": result.seconds}
    figures |= {f"stage_seconds/{stage.name}": stage.seconds for stage in result.stages if stage.ran}
    for target in result.targets:
        figures |= {f"{target.target}/{name}": value for name, value in _figures(target).items()}
    found = [Metric(_nameable(name), value, now, 0) for name, value in figures.items()]
    for epoch in result.training.history if result.training else ():
        values = {"train_loss": epoch.train_loss, "validation_loss": epoch.validation_loss, "validation_metric": epoch.metric}
        found += [Metric(name, value, now, epoch.epoch) for name, value in values.items()]
    return found


def _nameable(name: str) -> str:
    return _UNNAMEABLE.sub("_", name)


def _figures(target: TargetResult) -> dict[str, float]:
    """The chosen variant's test figures by plain name, every variant's by its own."""
    figures = {f"{metric.split}_{metric.name}": metric.value for metric in target.metrics}
    for variant in target.variants:
        figures |= {f"{variant.name}/{name}": value for name, value in _variant_figures(variant).items()}
    return figures


def _variant_figures(variant: VariantResult) -> dict[str, float]:
    figures = {"size_bytes": float(variant.size_bytes), "parity_relative": variant.parity.relative}
    figures |= {f"{metric.split}_{metric.name}": metric.value for metric in variant.metrics}
    if variant.latency:
        figures |= {
            "p50_us": variant.latency.p50_ns / 1000,
            "p90_us": variant.latency.p90_ns / 1000,
            "speed": variant.latency.ratio,
        }
    return figures


def _log_files(client: "MlflowClient", run_id: str, result: BuildResult) -> None:
    """The report and the manifests; models stay where they were built and are named by digest."""
    out = Path(result.out)
    for file in (out / "report.html", out / "report.json"):
        if file.exists():
            client.log_artifact(run_id, str(file))
    for target in result.targets:
        manifest = Path(target.path) / MANIFEST_NAME
        if manifest.exists():
            client.log_artifact(run_id, str(manifest), f"targets/{target.target}")
    client.log_text(run_id, json.dumps(result.environment, indent=1, sort_keys=True), "environment.json")


def _register(client: "MlflowClient", run: "Run", result: BuildResult) -> "ModelVersion":
    """The registered version of this release: the one an equal build made before, else a new one."""
    from mlflow.exceptions import MlflowException

    model = result.recipe.model.name
    try:
        client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(model, description=result.recipe.model.description)
    wanted = {name: value for name, value in _tags(result).items() if name.startswith(PREFIX)}
    for version in client.search_model_versions(f"name='{model}'"):
        if wanted.items() <= version.tags.items():
            return version
    wanted |= {f"{PREFIX}run": run.info.run_id}
    for target in result.targets:
        wanted |= {f"{PREFIX}{metric.name}.{target.target}": f"{metric.value:.6f}" for metric in target.metrics}
    return client.create_model_version(model, source=run.info.artifact_uri, run_id=run.info.run_id, tags=wanted)


def _holder(client: "MlflowClient", model: str, alias: str) -> str:
    """The release an alias names; a search leaves aliases out, so it is asked for by name."""
    held = client.get_registered_model(model).aliases.get(alias)
    return str(client.get_model_version(model, held).tags.get(f"{PREFIX}version", "")) if held else ""


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested tables as dotted keys, as `--set` addresses them; empty ones are left out."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {} if value in (None, [], ()) else {prefix: str(value)}
    return {name: text for key, item in items for name, text in _flat(item, f"{prefix}.{key}" if prefix else key).items()}


def _local_folder(store: str) -> Path | None:
    """The folder of a local SQLite store; None for a server. Raises UsageError for an address MLflow does not know."""
    scheme, _, rest = store.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return Path(rest[1:]).parent
    if scheme in ("http", "https") or scheme.startswith(("postgresql", "mysql", "mssql")):
        return None
    raise UsageError(f"tracking store {store!r}: expected sqlite:///FILE, http(s)://SERVER or off")


def _shown(store: str) -> str:
    """The store's address without a password."""
    parts = urlsplit(store)
    return store.replace(f":{parts.password}@", ":…@") if parts.password else store
