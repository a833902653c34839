"""What should a person know before using this model? The model card, written from the build's own facts."""

from collections.abc import Sequence

from runtime.contract.artifact import Manifest
from toolchain.pipeline.products import Choice, DataSplits
from toolchain.pipeline.record import MetricResult


def write_card(manifest: Manifest, description: str, splits: DataSplits, metrics: Sequence[MetricResult], choice: Choice) -> str:
    """Markdown; holds only what the manifest's inputs determine, so that its digest is the build's."""
    steering = splits.steering
    lines = [
        f"# {manifest.model} {manifest.version} for {manifest.requires.profile}",
        "",
        description or "No description was given in the recipe.",
        "",
        "## Figures on held-out test data",
        "",
        *(f"- {item.name}: {item.value:.4f} (95 % interval {item.low:.4f} to {item.high:.4f}, n = {item.n})" for item in metrics),
        "",
        "The test split was read once, after all choices were made; validation data steered them.",
        "",
        "## Data",
        "",
        f"- {steering.train.rows} training, {steering.validation.rows} validation, {splits.held_out.test.rows} test examples",
        f"- fingerprint {splits.fingerprint}",
        *(f"- input {spec.name}: {spec.datatype} {list(spec.shape)} {spec.layout}".rstrip() for spec in manifest.inputs),
        *([f"- classes: {', '.join(steering.classes)}"] if steering.classes else []),
        *(f"- note: {note}" for note in splits.notes),
        "",
        "## Form",
        "",
        f"- variant {choice.chosen}, engine {manifest.requires.engine} "
        f"{manifest.requires.engine_range.at_least} up to {manifest.requires.engine_range.below}",
        f"- licence: {manifest.licence or 'not stated'}",
        f"- personal data: {'yes' if manifest.consent.personal_data else 'no'}",
        "",
    ]
    return "\n".join(lines)
