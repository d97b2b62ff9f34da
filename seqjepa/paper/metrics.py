"""Every number of results.json: its key, what it is called, in which unit, which values it can have, what is better.

A new metric is one entry of METRICS beside the code that computes it. From there the terminal's table, the check of
results.json, "Every number" of a report and, with a `column`, a report's tables of our own numbers take it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["higher", "lower", ""]
"""What is better; "" for numbers that say how easy a task is, or how many there were, and nothing of the model."""
ARROWS: dict[Direction, str] = {"higher": "↑", "lower": "↓", "": ""}


@dataclass(frozen=True)
class Scale:
    """What numbers of one kind have in common.

    unit       as tables print it: "%" of a number that results.json has as a fraction
    low, high  the values that it can have in results.json
    """

    unit: str
    better: Direction
    low: float
    high: float


ACCURACY = Scale("%", "higher", 0.0, 1.0)
SHARE = Scale("fraction", "higher", 0.0, 1.0)
CHANCE = Scale("fraction", "", 0.0, 1.0)
"""What a guess reaches."""
EXPLAINED = Scale("R²", "higher", -math.inf, 1.0)
DEGREES = Scale("degrees", "lower", 0.0, 180.0)
ERROR = Scale("", "lower", 0.0, math.inf)
"""In the unit of a column."""
CHANCE_DEGREES = Scale("degrees", "", 0.0, 180.0)
RANK = Scale("", "higher", 0.0, math.inf)
"""An effective rank: up to the width of the features."""
COUNT = Scale("", "", 0.0, math.inf)
HOURS = Scale("h", "lower", 0.0, math.inf)
GMACS = Scale("GMAC", "lower", 0.0, math.inf)
PARAMETERS = Scale("", "lower", 0.0, math.inf)


@dataclass(frozen=True)
class Metric:
    """One number.

    key       in results.json, with a dot for each level; numbers by size ({"1": 0.5, …}) stand below it
    label     its name, with {} for a size; "" for what no table of numbers lists
    features  what it is read from, for the protocol of a cell, with {} for a size
    column    its heading in a report's tables of our own numbers, with {} for a size; "" where it has no column there
    own_table whether that column is in the table of metrics that the paper does not have, which shows every run, not in
              the one of runs that are no row of the paper's
    paper     its name in results.csv, where it is always this number that a published value compares with
    """

    key: str
    label: str
    scale: Scale
    features: str = ""
    column: str = ""
    paper: str = ""
    own_table: bool = False

    @property
    def by_size(self) -> bool:
        return "{}" in self.label


PATHS = {"both": "vision and actions", "no_action": "vision alone", "no_vision": "actions alone"}
"""Path integration: what its heads are shown, by name in results.json."""
REGRESSED = {
    "rel_rot": ("relative rotation", "R2_rel_rot"),
    "indiv_rot": ("individual rotation", "R2_indiv_rot"),
    "hue": ("hue difference", "R2_color"),
    "position": ("position difference", "R2_position"),
    "crop": ("crop difference", "R2_crop"),
    "jitter": ("jitter difference", "R2_jitter"),
    "blur": ("blur difference", "R2_blur"),
}
"""Targets of regression by name in results.json: their names in words and in results.csv."""
MOST_COLUMNS = 6
"""That a label names one by one; of a longer vector the name and how many."""
MEAN_R2 = "z, R² mean over dimensions (scikit-learn)"


def _regression(name: str) -> list[Metric]:
    """Of a target that the paper has."""
    words, paper = REGRESSED[name]
    short = {"hue": "colour"}.get(name, words.removesuffix(" difference"))
    return _regressed(name, words, short, paper, degrees=name.endswith("_rot"))


def _regressed(name: str, words: str, short: str, paper: str, *, degrees: bool) -> list[Metric]:
    """R² in both definitions; of rotations the error in degrees too."""
    found = [
        Metric(f"r2_{name}_avg", f"R² {words}, avg", EXPLAINED, MEAN_R2, f"R² {short}", paper),
        Metric(f"r2_{name}_pool", f"R² {words}, pooled", EXPLAINED),
    ]
    if degrees:
        found += [
            Metric(f"{name}_deg", f"{words}, mean error in degrees", DEGREES),
            Metric(f"{name}_deg_median", f"{words}, median error in degrees", DEGREES),
        ]
    return found


def _retrieval(key: str, label: str, paper: bool = False) -> list[Metric]:
    """Of retrieval from one context of views."""
    features, column = ("val–val, context of one view", "MRR") if paper else ("", "")
    return [
        Metric(f"{key}.mrr", f"MRR, {label}", SHARE, features, column, "MRR" if paper else ""),
        Metric(f"{key}.h1", f"H@1, {label}", SHARE, paper="Hit@1" if paper else ""),
        Metric(f"{key}.h5", f"H@5, {label}", SHARE, paper="Hit@5" if paper else ""),
        Metric(f"{key}.mrr_no_identity", f"MRR, {label}, without the identity", SHARE),
        Metric(f"{key}.h1_no_identity", f"H@1, {label}, without the identity", SHARE),
        Metric(f"{key}.h5_no_identity", f"H@5, {label}, without the identity", SHARE),
        Metric(f"{key}.mrr_blind", f"MRR, {label}, from another object's views", CHANCE),
        Metric(f"{key}.mrr_chance", f"MRR, {label}, by chance", CHANCE),
    ]


def _under(metrics: Iterable[Metric], key: str, label: str) -> list[Metric]:
    """The same numbers of other features, under another key. key, label: formats of a metric's own."""
    return [Metric(key.format(key=metric.key), label.format(label=metric.label), metric.scale) for metric in metrics]


def _of_the_map(metric: Metric) -> Metric:
    """The same of the feature map before pooling."""
    column = f"{metric.column}, map" if metric.column else ""
    key, label = f"unpooled.{metric.key}", f"{metric.label}, 2 × 2 map before pooling"
    return Metric(key, label, metric.scale, "2 × 2 map before pooling", column, own_table=bool(column))


def _by_neighbours(metric: Metric) -> Metric:
    """The same features' accuracy by weighted k-NN, k = 20, in the place of a linear classifier's."""
    key = f"representation.{metric.key.replace('top1', 'knn')}"
    column = metric.column.replace("Top-1", "20-NN")
    return Metric(key, f"20-NN {metric.label}", ACCURACY, metric.features, column, own_table=True)


ACCURACIES = [
    Metric("top1_z", "top-1, z", ACCURACY, "z", "Top-1 of z"),
    Metric("top1_z_image", "top-1, z of the whole image", ACCURACY, "z of the whole image", "Top-1 of z, whole image"),
    Metric("top1_z_patch", "top-1, z of the first patch", ACCURACY),
    Metric("top1_z_view", "top-1, z of one augmented view", ACCURACY),
    Metric("top1_z_mean", "top-1, mean z, M_val = {}", ACCURACY),
    Metric("top1_agg", "top-1, z_AGG, M_val = {}", ACCURACY, "z_AGG, M_val {}", "Top-1 of z_AGG, M_val {}"),
]
ROTATIONS = [*_regression("rel_rot"), *_regression("indiv_rot")]
OF_VIEWS = [*ACCURACIES, *ROTATIONS, *(m for name in list(REGRESSED)[2:] for m in _regression(name))]
IN_CONTEXT = [m for m in OF_VIEWS if m.key == "top1_z" or m.key.startswith(("r2_rel", "r2_indiv", "r2_hue"))]
IN_CONTEXT += [m for m in ROTATIONS if m.scale is DEGREES]
"""What ContextSSL's features are measured by."""
OOD_METRICS = [metric for metric in OF_VIEWS if metric.key in ("top1_z", "top1_agg")] + ROTATIONS
NEIGHBOURS = "3 nearest neighbours"
"""Those whose pictures the report shows are as many."""

METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        *OF_VIEWS,
        *(
            Metric(f"r2_path.{name}", f"R² path, {shown}, M = {{}}", EXPLAINED, "[z_AGG; e_M], M = {}")
            for name, shown in PATHS.items()
        ),
        *_under(IN_CONTEXT, "in_context.encoder.{key}", "{label}, without the transformer"),
        *_under(IN_CONTEXT, "in_context.rotation.{key}", "{label}, context of rotation, {{}} tokens"),
        *_under(IN_CONTEXT, "in_context.colour.{key}", "{label}, context of colour, {{}} tokens"),
        *_under([m for m in OF_VIEWS if m.key != "top1_agg"], "halves.invariant.{key}", "{label}, invariant half"),
        *_under([m for m in OF_VIEWS if m.key != "top1_agg"], "halves.equivariant.{key}", "{label}, equivariant half"),
        *_retrieval("retrieval", "retrieval", paper=True),
        *_retrieval("retrieval_3", "retrieval after 3 views"),
        Metric("retrieval_online.mrr", "MRR, retrieval among online features", SHARE),
        Metric("retrieval_3_online.mrr", "MRR, retrieval after 3 views among online features", SHARE),
        Metric("neighbours.class", f"{NEIGHBOURS}, share of the same class", SHARE),
        Metric("neighbours.object", f"{NEIGHBOURS}, share of the same object", SHARE),
        Metric("neighbours.angle_deg", f"{NEIGHBOURS}, mean angle to the query, degrees", DEGREES),
        Metric("neighbours.class_chance", f"{NEIGHBOURS}, share of the same class by chance", CHANCE),
        Metric("neighbours.object_chance", f"{NEIGHBOURS}, share of the same object by chance", CHANCE),
        Metric(
            "neighbours.angle_deg_chance", f"{NEIGHBOURS}, mean angle to the query, degrees by chance", CHANCE_DEGREES
        ),
        Metric("rollout.mrr", "MRR of a rollout, step {}", SHARE, "val–val, step {}"),
        Metric("rollout.h1", "H@1 of a rollout, step {}", SHARE),
        Metric("rollout.mrr_teacher", "MRR from true features, step {}", SHARE),
        Metric("rollout.mrr_blind", "MRR of a rollout from another object's views, step {}", CHANCE),
        Metric("rollout.mrr_chance", "MRR of a rollout by chance", CHANCE),
        *_under(OOD_METRICS, "ood.{key}", "OOD: {label}"),
        *map(_of_the_map, ROTATIONS),
        Metric("odd_one_out.agg", "odd one out (protocol ours), z_AGG", ACCURACY),
        Metric("odd_one_out.agg_tuned", "odd one out (protocol ours), z_AGG, aggregator tuned", ACCURACY),
        Metric("odd_one_out.z", "odd one out (protocol ours), three z", ACCURACY),
        Metric("umap.trustworthiness_view", "map of z: trustworthiness, 15 neighbours", SHARE),
        Metric("umap.trustworthiness_agg", "map of z_AGG: trustworthiness, 15 neighbours", SHARE),
        *(_by_neighbours(metric) for metric in ACCURACIES),
        Metric("representation.rankme", "RankMe, z", RANK, "z of training views", "RankMe of z", own_table=True),
        Metric("representation.lidar", "LiDAR, z", RANK, "z of training views", "LiDAR of z", own_table=True),
        Metric("costs.macs_g", "", GMACS),
        Metric("costs.gpu_hours", "", HOURS),
        Metric("costs.hours", "", HOURS),
        Metric("costs.parameters", "", PARAMETERS),
        *(
            Metric(key, "", COUNT)
            for key in ("seconds", "ood.objects", "neighbours.queries", "rollout.context", "rollout.queries")
        ),
        *(
            Metric(f"{key}.{counted}", "", COUNT)
            for key in ("retrieval", "retrieval_3", "retrieval_online", "retrieval_3_online")
            for counted in ("queries", "objects", "context")
        ),
    )
}
"""By key, in the order in which tables list them."""
ROWS = {key: metric.label for key, metric in METRICS.items() if metric.label}
"""Labels of the numbers that tables list, {} for a size."""

NAMED = {metric.paper: metric for metric in METRICS.values() if metric.paper}
"""By their names in results.csv."""


def metric_of(key: str | Sequence[str]) -> Metric | None:
    """The metric of a key of results.json, dotted or in parts, with or without a size; None for none of ours.

    "ood.top1_agg.5" → the metric of key "ood.top1_agg".
    """
    key = key if isinstance(key, str) else ".".join(key)
    name, _, size = key.rpartition(".")
    found = METRICS.get(key) or (METRICS.get(name) if size.isdecimal() else None)
    return found or declared_metric(key)


_DECLARED = re.compile(
    r"(?P<half>halves\.(?:in|equi)variant\.)?(?P<of>(?:r2_|top1_|)(?:rel|indiv))_(?P<name>[A-Za-z0-9_]+?)"
    r"(?P<end>_avg|_pool|_deg|_deg_median|_rmse|_agg\.[0-9]+|)"
)
_NUMBERS: Mapping[tuple[str, str], tuple[str, Scale, str]] = {
    ("r2_", "_avg"): ("R² {}, avg", EXPLAINED, "R² {}"),
    ("r2_", "_pool"): ("R² {}, pooled", EXPLAINED, ""),
    ("r2_", "_agg"): ("R² {}", EXPLAINED, ""),
    ("", "_deg"): ("{}, mean error in degrees", DEGREES, "Error of {}"),
    ("", "_deg_median"): ("{}, median error in degrees", DEGREES, ""),
    ("", "_rmse"): ("{}, root mean square error", ERROR, "Error of {}"),
    ("top1_", ""): ("top-1 {}", ACCURACY, "Top-1 {}"),
}
"""By the beginning and the end of a key: label, scale and column of a number."""


def declared_metric(key: str, targets: Mapping[str, Any] | None = None) -> Metric | None:
    """The metric of a number of data whose actions are declared (seqjepa.evaluate.targets), which has as many as it has
    terms and columns: "r2_rel_term1_avg", "r2_indiv_state_agg.5". None for another key.

    targets: what a protocol says of them; without it labels say "term 1", "state".
    """
    if key in METRICS or key.rpartition(".")[0] in METRICS or (found := _DECLARED.fullmatch(key)) is None:
        return None
    half, of, name, end = found.group("half", "of", "name", "end")
    what, between = of.removesuffix("rel").removesuffix("indiv"), of.endswith("rel")
    end, _, size = end.partition(".")
    if (what, end) not in _NUMBERS or (between and size):
        return None
    label, scale, column = _NUMBERS[what, end]
    target = (targets or {}).get(f"{'rel' if between else 'indiv'}_{name}")
    words = columns_text(target) or re.sub(r"^term(\d+)$", r"term \1", name)
    words = words.replace(" [rad]", "") if scale is DEGREES else words
    words += " between views" if between else f" of the last view, z_AGG, M_val = {size}" if size else " of a view"
    words += ", by an MLP" if isinstance(target, dict) and target.get("head") == "mlp" else ""
    unit = target.get("unit") if end == "_rmse" and isinstance(target, dict) else ""
    unit = f", {unit}" if isinstance(unit, str) and unit not in ("", "1") else ""
    ending = f"{unit}, {half.split('.')[1]} half" if half else unit
    features = f"z_AGG, M_val {size}" if size else "[z₁; z₂]" if between else "z"
    heading = column.format(words) + unit if column and not half else ""
    return Metric(key, label.format(words) + ending, scale, features, heading)


def columns_text(target: Any) -> str:
    """ "x, y [m]", "state (12)" of what a protocol says of a target; "" where it says nothing of that form."""
    columns, units = (_texts(target.get(part)) if isinstance(target, dict) else [] for part in ("columns", "units"))
    if not columns or len(columns) != len(units):
        return ""
    if len(columns) > MOST_COLUMNS:
        columns, units = [f"{_stem(columns)} ({len(columns)})"], [units[0] if len(set(units)) == 1 else ""]
    if len(set(units)) == 1:
        return ", ".join(columns) + _in_brackets(units[0])
    return ", ".join(column + _in_brackets(unit) for column, unit in zip(columns, units, strict=True))


def _texts(value: Any) -> list[str]:
    return value if isinstance(value, list) and all(isinstance(text, str) for text in value) else []


def _stem(columns: Sequence[str]) -> str:
    """What the columns of a vector are called without their numbers; of others the first and the last."""
    stems = {re.sub(r"\.\d+$", "", column) for column in columns}
    return stems.pop() if len(stems) == 1 else f"{columns[0]} … {columns[-1]}"


def _in_brackets(unit: str) -> str:
    return "" if unit in ("", "1") else f" [{unit}]"


def better(key: str | Sequence[str]) -> Direction:
    """What is better of the number of a key, as `metric_of` takes it; "" for none of ours.

    "rel_rot_deg_median" → "lower", "ood.top1_agg.5" → "higher", "neighbours.class_chance" → "".
    """
    metric = metric_of(key)
    return metric.scale.better if metric else ""


def range_of(key: str) -> tuple[float, float] | None:
    """Lowest and highest value of the number of a key; None for none of ours."""
    metric = metric_of(key)
    return (metric.scale.low, metric.scale.high) if metric else None


def judged(difference: float | None, direction: Direction) -> Literal["better", "worse", ""]:
    """What a difference (this less that) says of this; "" for none, for 0 and for numbers without a direction."""
    if not difference or not direction:
        return ""
    return "better" if (difference > 0) == (direction == "higher") else "worse"
