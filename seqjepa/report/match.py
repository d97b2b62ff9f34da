"""Which run stands beside a published value, and in what its scale differs from the paper's.

A run is held against the recipe of the value. What makes it that row – method, what it is told, M_tr, kind of views,
ablations – has to agree; all other settings that differ are said beside the number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from seqjepa.config import PAPER_PROBE_EPOCHS, RunConfig
from seqjepa.evaluate.encode import PAPER_PATCH
from seqjepa.evaluate.results import regressors_of
from seqjepa.methods import is_idle
from seqjepa.paper.measures import measure_of
from seqjepa.paper.published import Published
from seqjepa.paper.sets import SETS_BY_NAME
from seqjepa.paper.tables import recipe_of
from seqjepa.recipes import flatten, load_recipe
from seqjepa.report.groups import (
    ABLATED_WIDTHS,
    Group,
    aggregates,
    conditioning,
    kind_of_data,
    kind_of_run,
    resolution,
)
from seqjepa.report.runs import RunRecord

HIGH_COMPUTE = 256
"""Pixels of a view from which a run belongs to Table 11 and to no other."""
WIDTH = "action_embedding_dim="
USUAL_WIDTH = 128
LINEARLY_REGRESSED = ("R2_color", "R2_position", "R2_blur")
"""Metrics of the paper's that are read by linear regressors (§A.2)."""
ELSEWHERE = ("name", "seed", "fidelity", "method", "train.", "data.set", "data.split", "data.image_size")
"""Settings that are no difference of scale, or that are compared as they were measured."""
SHORT = {"optim.batch_size": "batch", "data.context": "M_tr", "model.width": "width of the backbone ×"}


@cache
def recipe_config(name: str, fidelity: str = "paper") -> RunConfig:
    return load_recipe(name, [f"fidelity={fidelity}"])


@cache
def _identity_of_recipe(recipe: str) -> dict[str, Any]:
    config = recipe_config(recipe)
    return _row_identity(config, config.data.image_size, kind_of_data(config))


def is_row_of(record: RunRecord, row: Published) -> bool:
    """Whether the run is what `row` is about, at whatever scale and on whatever set.

    No run on own data is, and none whose encoder began with weights of others.
    """
    if record.is_own or record.config.model.pretrained:
        return False
    if not row.dataset:
        return _has_costs_of(record, row)
    if row.variant.startswith(WIDTH) and record.config.model.action_dim != int(row.variant.removeprefix(WIDTH)):
        return False
    return _row_identity(record.config, resolution(record), kind_of_run(record)) == _identity_of_recipe(recipe_of(row))


def is_on_set_of(record: RunRecord, row: Published) -> bool:
    """Whether it was trained and evaluated on the paper's own data. Costs are the same on any (Table 6)."""
    return not row.paper_set or record.paper_set == row.paper_set


def beside(row: Published, groups: Iterable[Group]) -> Group | None:
    """The runs that stand beside a published value: on its data. None: there are none."""
    return nearest_group(row, (group for group in groups if is_on_set_of(group.runs[0], row)))


def nearest_group(row: Published, groups: Iterable[Group]) -> Group | None:
    """Of the runs that are that row, on whatever data, those nearest to the paper's scale. None: there are none."""
    measure = measure_of(row)
    fitting = [group for group in groups if is_row_of(group.runs[0], row) and group.measured(measure)]
    return max(fitting, key=lambda group: _scale(group, row), default=None)


def _scale(group: Group, row: Published) -> tuple[float, ...]:
    """For comparing: the paper's scale, its fidelity, then epochs done, samples, resolution, width, seeds."""
    run = group.runs[0]
    return (
        not scale_differences(run, row),
        run.config.fidelity == "paper",
        run.epochs_measured,
        trained_samples(run),
        resolution(run),
        run.config.model.width,
        len(group.runs),
    )


def scale_differences(record: RunRecord, row: Published) -> tuple[str, ...]:
    """In what the run is not at the paper's scale: "epochs 30 (paper 1000)" … Empty if it is in everything."""
    if not row.dataset:
        return ()
    expected = recipe_config(recipe_of(row), record.config.fidelity)
    return (*_trained_differently(record, expected), *_probed_differently(record, row))


def _trained_differently(record: RunRecord, expected: RunConfig) -> Iterator[str]:
    if (pixels := resolution(record)) != expected.data.image_size:
        yield f"{pixels} px (paper {expected.data.image_size})"
    samples = trained_samples(record)
    if record.paper_set and samples and samples != (papers := SETS_BY_NAME[record.paper_set].samples):
        yield f"{samples:,} training samples (paper {papers:,})"
    if record.epochs_measured < record.config.optim.epochs:
        yield f"stopped after {record.epochs_measured:g} epochs"
    theirs = flatten(expected.model_dump())
    for key, ours in flatten(record.config.model_dump()).items():
        if ours != theirs[key] and not key.startswith(ELSEWHERE) and not _has_no_effect(key, record.config):
            name = SHORT.get(key, key.rpartition(".")[2].replace("_", " "))
            yield f"{name} {_setting_text(key, ours)} (paper {_setting_text(key, theirs[key])})"


def _probed_differently(record: RunRecord, row: Published) -> Iterator[str]:
    probed = record.protocol.get("probe_epochs", {}).get("classification", PAPER_PROBE_EPOCHS)
    if probed != PAPER_PROBE_EPOCHS:
        yield f"probes {probed} epochs (paper {PAPER_PROBE_EPOCHS})"
    patch = record.protocol.get("position_patches", {}).get("patch", PAPER_PATCH)
    if row.metric == "R2_position" and patch != PAPER_PATCH:
        yield f"positions of patches of {patch} px (paper {PAPER_PATCH})"
    if row.metric in LINEARLY_REGRESSED and regressors_of(record.protocol) != "plain":
        yield f"linear regressors {regressors_of(record.protocol)} (paper plain)"


def trained_samples(record: RunRecord) -> int:
    """Objects or images in an epoch of training; 0 if that was not logged."""
    return int(record.epochs[-1].get("samples", 0)) if record.epochs else 0


def _row_identity(config: RunConfig, pixels: int, kind: str) -> dict[str, Any]:
    """What makes a run a row of the paper's."""
    data, model = config.data, config.model
    found: dict[str, Any] = {
        "method": config.method,
        "told": conditioning(config),
        "M_tr": data.context,
        "kind": kind,
        "augment": data.augment,
        "projector": model.projector_kind,
        "high compute": kind == "rotation" and pixels >= HIGH_COMPUTE,
    }
    if aggregates(config):
        width = model.action_dim if model.action_dim in ABLATED_WIDTHS else USUAL_WIDTH
        found |= {"condition": model.condition, "action_dim": width}
    if kind == "position":
        found |= {"saliency": data.fixations, "inhibition": data.inhibition != "none", "stem": model.stem}
    return found


def _has_no_effect(key: str, config: RunConfig) -> bool:
    """Whether a setting changes nothing of what this run learned, or is said already."""
    if key == "data.action":
        return not conditioning(config)
    return key == "model.view_size" or is_idle(key, config)  # the resolution stands at the beginning


def _has_costs_of(record: RunRecord, row: Published) -> bool:
    """Table 6: the paper's networks on inputs of that size. Without an aggregator it is the encoder's cost."""
    size = record.config.data.patch or resolution(record)
    own = aggregates(record.config) == (row.m_val is not None)
    return own and size == row.resolution and has_networks_of_table_6(record)


def has_networks_of_table_6(record: RunRecord) -> bool:
    """Whether its networks are of the paper's sizes, so that they cost the same on any data."""
    usual = recipe_config("3die-rot-M3").model.model_dump(exclude={"condition"})
    return record.config.model.model_dump(exclude={"condition"}) == usual


def _setting_text(key: str, value: object) -> str:
    """A setting's value. Widths that are left to the method are 0 or none."""
    if key in ("model.projector", "model.predictor_hidden"):
        value = value if isinstance(value, int) else ", ".join(map(str, value))  # type: ignore[arg-type]
        return str(value) if value else "the method's own"
    return f"{value:g}" if isinstance(value, float) else str(value)
