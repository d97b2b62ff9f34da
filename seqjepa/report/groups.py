"""What a run is called, and which runs stand together.

A label says the method, what it is told of actions, the kind of data, and what is not as usual. Runs that differ in
nothing but their seed are one Group: one name, mean ± sample standard deviation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import mean, stdev

from seqjepa.config import ModelConfig, RunConfig
from seqjepa.data.actions import DECLARED, action_name, is_augmentation
from seqjepa.evaluate.protocol import measured_as
from seqjepa.methods import find_method
from seqjepa.methods.base import Aggregating, Method
from seqjepa.models.timm_encoder import is_timm
from seqjepa.paper.measures import Measure, value_at
from seqjepa.paper.sets import SETS_BY_NAME
from seqjepa.recipes import flatten
from seqjepa.report.runs import RunRecord
from shards.errors import ConfigError

logger = logging.getLogger(__name__)

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
    words += encoder_words(config.model)
    if conditioning(config) and action_name(config.data.action) != kind_of_data(config):
        words.append(f"told {conditioning(config)}")
    words += [config.fidelity] if config.fidelity != "paper" else []
    return ", ".join(words)


def encoder_words(model: ModelConfig) -> Iterator[str]:
    """An encoder that is not a torchvision ResNet at random weights, and how it is used."""
    if is_timm(model):
        patch = f" with patches of {model.patch_size} px" if model.patch_size else ""
        resized = f" at {model.input_size} px" if model.input_size else ""
        pooled = f", {model.pool} pooling" if model.pool else ""
        yield f"{model.backbone}{patch}{resized}{pooled}"
    if model.pretrained:
        yield "frozen weights" if model.freeze else "pretrained"
    elif model.freeze:
        yield "frozen at random weights"


def method_of(config: RunConfig) -> type[Method]:
    """The class of a run's method; of one that this version does not know, or whose package is broken, the base."""
    try:
        return find_method(config.method) or Method
    except ConfigError as error:
        _warn_once(str(error))
        return Method


@cache
def _warn_once(line: str) -> None:
    logger.warning("%s; its runs are reported by what is common to all methods", line)


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
    usual = whatever_told or action_name(config.data.action) == kind_of_data(config)
    ablated = config.model.condition != "both" or any(ablations(config))
    return aggregates(config) and usual and not ablated


def conditioning(config: RunConfig) -> str:
    """What a run is told of its actions, as the paper's tables name it; "" for what is told nothing."""
    if not method_of(config).uses_actions or config.model.condition == "none":
        return ""
    name = action_name(config.data.action)
    return CONDITIONING.get(name, name)


def kind_of_data(config: RunConfig, shards: str = "") -> str:
    """ "rotation" (stored views), "position" (fixations), "augmentation", or "declared" (own actions).

    shards: their kind, where it is known. Without actions it tells augmented images from stored views that are
    augmented beside them.
    """
    data = config.data
    if action_name(data.action) == DECLARED:
        return DECLARED
    if data.patch or data.action == "position":
        return "position"
    made = data.augment != "none" and data.action == "none" and shards != "views"
    return "augmentation" if made or is_augmentation(data.action) else "rotation"


def kind_of_run(record: RunRecord) -> str:
    """kind_of_data of a run, which has noted what its shards held."""
    return kind_of_data(record.config, str(value_at(record.identity, "data.kind")))


def resolution(record: RunRecord) -> int:
    """Pixels a side of the images, as evaluated, else as trained on or configured; 0 if none is known."""
    trained_on = value_at(record.identity, "data.image_height")
    return int(record.protocol.get("resolution") or trained_on or record.config.data.image_size)


def data_label(record: RunRecord) -> str:
    """ "3die-synth, 48 px": what numbers are comparable within."""
    pixels = resolution(record)
    return f"{record.dataset}, {pixels} px" if pixels else record.dataset


TABLES_M_VAL = 5
SEEDLESS = ("name", "seed", "train.", "data.set")
"""Settings that may differ within a group."""


@dataclass(frozen=True)
class Mean:
    """Over seeds. std: of the sample; None for one seed."""

    value: float
    std: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean | None:
        """None: there are none."""
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values)) if values else None

    def times(self, factor: float) -> Mean:
        """In other units, such as percent."""
        return Mean(factor * self.value, None if self.std is None else factor * self.std, self.seeds)


@dataclass(frozen=True)
class Group:
    """Runs of one kind. label: what tells it from the other groups in the same figure.

    A copy of a run is no second seed: numbers are of the first run of each seed that has them.
    """

    label: str
    runs: tuple[RunRecord, ...]

    @property
    def config(self) -> RunConfig:
        return self.runs[0].config

    @property
    def data(self) -> str:
        return data_label(self.runs[0])

    @property
    def kind(self) -> str:
        """See kind_of_data."""
        return kind_of_run(self.runs[0])

    @property
    def home(self) -> str:
        """The paper's data set whose published numbers these may stand among; "" for other data or resolution.

        Epochs and the number of objects do not matter here; match.scale_differences names them.
        """
        run = self.runs[0]
        known = SETS_BY_NAME.get(run.paper_set)
        return known.name if known and resolution(run) == known.resolution else ""

    @property
    def is_own(self) -> bool:
        """Whether its data are of none of the paper's kinds."""
        return self.runs[0].is_own

    @property
    def seeds(self) -> int:
        return len({run.config.seed for run in self.runs})

    def label_of(self, run: RunRecord) -> str:
        """The group's, with the run's seed where it is one of several."""
        return self.label if len(self.runs) == 1 else f"{self.label}, seed {run.config.seed}"

    def first_of_each_seed(self, read: Callable[[RunRecord], float | None]) -> list[tuple[RunRecord, float]]:
        """Runs, one of each seed, with what is read from them; those from which nothing is read are passed over."""
        found: dict[int, tuple[RunRecord, float]] = {}
        for run in self.runs:
            if (value := read(run)) is not None:
                found.setdefault(run.config.seed, (run, value))
        return list(found.values())

    def mean_of(self, read: Callable[[RunRecord], float | None]) -> Mean | None:
        """Of what is read from the first run of each seed that has it; None if no run has it."""
        return Mean.of([value for _, value in self.first_of_each_seed(read)])

    def mean(self, key: str, weights: str = "trained") -> Mean | None:
        """Of the numbers under a dotted key of results.json; what is none, in a stranger's, is passed over."""
        return self.mean_of(lambda run: _number(value_at(run.results, f"{weights}.{key}")))

    def measured(self, measure: Measure) -> list[RunRecord]:
        """Runs that have the number, one of each seed."""
        return [run for run, _ in self.first_of_each_seed(lambda run: measure.read(run.trained))]

    def curve(self, key: str, weights: str = "trained") -> dict[int, Mean]:
        """Scores by size ({"1": 0.5, …} under `key`), in order of size."""
        found = [value_at(run.results, f"{weights}.{key}") for run in self.runs]
        named = {size for scores in found if isinstance(scores, Mapping) for size in scores}
        sizes = sorted({int(size) for size in named if size.isascii() and size.isdecimal()})
        means = {m: self.mean(f"{key}.{m}", weights) for m in sizes}
        return {m: mean for m, mean in means.items() if mean}


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def groups_of(records: Iterable[RunRecord]) -> list[Group]:
    """Groups in the order of their first run. Names that two would share are followed by the runs' own."""
    by_kind: dict[tuple[object, ...], list[RunRecord]] = {}
    for record in records:
        by_kind.setdefault(_kind(record), []).append(record)
    groups = [Group(label(runs[0].config), tuple(runs)) for runs in by_kind.values()]
    labels = [(group.label, group.data) for group in groups]
    return [
        replace(group, label=f"{group.label} ({group.runs[0].name})") if labels.count(key) > 1 else group
        for group, key in zip(groups, labels, strict=True)
    ]


def families(groups: Iterable[Group], *differing: str) -> list[list[Group]]:
    """seq-JEPA as published, without ablations: groups that differ in the settings `differing` alone ("data.context").

    They are told what is usual for their kind of data, unless "data.action" is one of `differing`.

    Of the same data, families of one member are left out where there is a larger one: those are ablations.
    """
    found: dict[tuple[object, ...], list[Group]] = {}
    for group in groups:
        if is_whole(group.config, whatever_told="data.action" in differing):
            found.setdefault(_kind(group.runs[0], *differing), []).append(group)
    largest: dict[str, int] = {}
    for family in found.values():
        largest[family[0].data] = max(len(family), largest.get(family[0].data, 0))
    return [family for family in found.values() if len(family) > 1 or largest[family[0].data] == 1]


def by_data(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups by the data that they were evaluated on."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.data, []).append(group)
    return found


def accuracy(group: Group, weights: str = "trained") -> tuple[int | None, Mean] | None:
    """Top-1 as the paper's tables choose it, with its M_val: of z_AGG at 5 views or the most below, else of z."""
    if curve := group.curve("top1_agg", weights):
        m_val = max((m for m in curve if m <= TABLES_M_VAL), default=min(curve))
        return m_val, curve[m_val]
    of_z = group.mean("top1_z", weights) or group.mean("top1_z_image", weights)
    return (None, of_z) if of_z else None


def _kind(record: RunRecord, *differing: str) -> tuple[object, ...]:
    """What runs of a group share: their data, how far and in which precision they were trained, how they were measured,
    and every setting except seeds, and except those named."""
    flat = flatten(record.config.model_dump())
    trained_on = value_at(record.identity, "shards.train")  # sets of one name may differ
    trained = (trained_on, record.epochs_measured, value_at(record.protocol, "precision.training"))
    measured = (record.paper_set, *trained, measured_as(record.protocol))
    skipped = (*SEEDLESS, *differing)
    kept = tuple((key, str(value)) for key, value in sorted(flat.items()) if not key.startswith(skipped))
    return (data_label(record), *measured, *kept)
