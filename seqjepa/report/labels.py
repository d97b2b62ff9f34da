"""What a run is called, by its settings: method, what it is told of actions, kind of data, and what is not as usual."""

from __future__ import annotations

from collections.abc import Iterator

from seqjepa.config import RunConfig
from seqjepa.data.actions import action_name, is_augmentation
from seqjepa.methods import METHODS
from seqjepa.methods.base import Aggregating, Method
from seqjepa.paper.sets import SETS_BY_NAME
from seqjepa.report.runs import RunRecord

CONDITIONS = {
    "aggregator": "no predictor conditioning",
    "predictor": "no transformer conditioning",
    "none": "no actions",
}
CONDITIONING = {
    "augmentation": "crop+jitter+blur",
    "rotation_colour": "rotation+color",
    "none": "",
    "shards": "what the shards declare",
    "declared": "declared actions",
}
"""Names for what a run is conditioned on, where they are not those of actions.py: first the paper's."""
ABLATED_WIDTHS = (16, 64, 256)
"""Of the action embedding, in Table 4, beside the usual 128; any other width is a matter of scale."""


def label(config: RunConfig, m_val: int | None = None) -> str:
    """A short name for a kind of run: method, M_tr and whatever is not as usual.

    m_val: of a number on z_AGG; then both sizes are written as the paper does, "seq-JEPA (3,5)".
    """
    words = [method_name(config) + ("+" if config.model.projector_kind == "transformer" else "")]
    if method_of(config).views_needed is None:
        if m_val is None:
            words.append(f"M_tr {config.data.context}")
        else:
            words[0] += f" ({config.data.context},{m_val})"
        words += [CONDITIONS[config.model.condition]] if config.model.condition in CONDITIONS else []
    words += ablations(config)
    if conditioning(config) and config.data.action != kind_of_data(config):
        words.append(f"told {conditioning(config)}")
    words += [config.fidelity] if config.fidelity != "paper" else []
    return ", ".join(words)


def method_of(config: RunConfig) -> type[Method]:
    """The class of a run's method; of one that this version does not know, the base."""
    return METHODS.get(config.method, Method)


def method_name(config: RunConfig) -> str:
    """As the paper writes it."""
    return method_of(config).display_name or config.method


def aggregates(config: RunConfig) -> bool:
    """Whether the method has a z_AGG (seq-JEPA)."""
    return issubclass(method_of(config), Aggregating)


def ablations(config: RunConfig) -> Iterator[str]:
    """What is left out or changed as in the paper's ablations, beside what the run is told of actions."""
    data, model = config.data, config.model
    if data.patch and data.fixations == "uniform":
        yield "no saliency"
    if data.patch and data.inhibition == "none":
        yield "no IoR"
    if data.patch and model.stem == "standard":
        yield "standard stem"
    if aggregates(config) and model.action_dim in ABLATED_WIDTHS:
        yield f"action embedding {model.action_dim}"


def is_whole(config: RunConfig, *, whatever_told: bool = False) -> bool:
    """Whether it is seq-JEPA without an ablation, told what is usual for its kind of data, which is called the same."""
    usual = whatever_told or config.data.action == kind_of_data(config)
    ablated = config.model.condition != "both" or any(ablations(config))
    return aggregates(config) and usual and not ablated


def conditioning(config: RunConfig) -> str:
    """What a run is told of its actions, as the paper's tables name it; "" for what is told nothing."""
    if not method_of(config).uses_actions or config.model.condition == "none":
        return ""
    name = action_name(config.data.action)
    return CONDITIONING.get(name, name)


def kind_of_data(config: RunConfig) -> str:
    """ "rotation" (stored views), "position" (fixations) or "augmentation"."""
    data = config.data
    if data.patch or data.action == "position":
        return "position"
    return "augmentation" if data.augment != "none" or is_augmentation(data.action) else "rotation"


def resolution(record: RunRecord) -> int:
    """Pixels a side of the images, as evaluated, else as trained on or configured; 0 if none is known."""
    trained_on = record.identity.get("data", {}).get("image_height")
    return int(record.protocol.get("resolution") or trained_on or record.config.data.image_size)


def data_label(record: RunRecord) -> str:
    """ "3die-synth, 48 px": what numbers are comparable within."""
    pixels = resolution(record)
    return f"{record.dataset}, {pixels} px" if pixels else record.dataset


def home(record: RunRecord) -> str:
    """The paper's data set whose published numbers a run may stand among; "" for other data or another resolution.

    Epochs and the number of objects do not matter here; match.differences names them.
    """
    known = SETS_BY_NAME.get(record.paper_set)
    return known.name if known and resolution(record) == known.resolution else ""
