"""Which probes there are for a run and a shard set, and why others are missing (paper §3.3, §A.2, §B.9).

inputs.py has what they are shown, declared.py those of actions that are declared.
"""

from __future__ import annotations

from seqjepa.config import EvalConfig
from seqjepa.data.actions import (
    POSITION_TARGET,
    ActionTarget,
    is_augmentation,
    path_of,
    rotation_term,
)
from seqjepa.data.sequence import KindOfViews
from seqjepa.evaluate.capabilities import Capabilities
from seqjepa.evaluate.declared import declared_tasks
from seqjepa.evaluate.inputs import (
    action_between,
    action_of,
    augmentation_between,
    label_of_image,
    label_of_means,
    label_of_prefixes,
    label_of_view,
    path_of_prefixes,
    rotation_of_view,
)
from seqjepa.evaluate.probes import Found, ProbeTask, classification, regression
from seqjepa.methods.base import Aggregating

ABLATIONS = {"both": (True, True), "no_action": (True, False), "no_vision": (False, True)}
"""Path integration: (vision, acting) by name."""
OF_VIEW: dict[KindOfViews, str] = {
    "stored views": "top1_z",
    "patches": "top1_z_patch",
    "augmentations": "top1_z_view",
}
"""By what a view is: the name of top-1 on z of one."""


def tasks_for(can: Capabilities, config: EvalConfig) -> tuple[list[ProbeTask], dict[str, str]]:
    """The probes that make sense, and for each that does not, why."""
    possible: list[ProbeTask] = []
    skipped: dict[str, str] = {}
    for found in (*_accuracy(can, config), *_regression(can, config), *_path(can, config)):
        if isinstance(found, ProbeTask) and found.views > can.most_views:
            found = (found.name, _too_few(found.views, can))
        if isinstance(found, ProbeTask):
            possible.append(found)
        else:
            skipped[found[0]] = found[1]
    return possible, skipped


def _accuracy(can: Capabilities, config: EvalConfig) -> Found:
    of_view = OF_VIEW[can.seen]
    if not can.labelled:
        yield from ((name, "samples without a label") for name in (of_view, "top1_agg"))
        return
    if can.seen != "stored views":
        yield classification("top1_z_image", label_of_image, can.classes, config.epochs)
    yield classification(of_view, label_of_view, can.classes, config.epochs)
    if isinstance(can.method, Aggregating):
        name, draws = "top1_agg", config.aggregate_draws
    elif can.seen == "patches":
        yield "top1_agg", "the method has no aggregate; top1_z_mean stands for it"
        name, draws = "top1_z_mean", None
    else:
        yield "top1_agg", "the method has no aggregate"
        return
    sizes = tuple(m for m in config.m_val if m <= can.most_context)
    yield from ((f"{name}.{m}", _too_few(m + can.augmented, can)) for m in config.m_val if m not in sizes)
    if sizes and isinstance(can.method, Aggregating):
        shown = label_of_prefixes(can.method, can.action, sizes)
        # Released actions of augmentations depend on how many views were drawn: always the whole draw.
        views = can.most_views if can.augmented else max(sizes)
        yield classification(name, shown, can.classes, config.epochs, views=views, sizes=sizes, draws=draws)
    elif sizes:
        shown = label_of_means(sizes)
        yield classification(name, shown, can.classes, config.epochs, views=max(sizes), sizes=sizes, draws=draws)


def _regression(can: Capabilities, config: EvalConfig) -> Found:
    if can.declared is not None:
        yield from declared_tasks(can, config)
        return
    if can.augmented and can.maps and not can.patches:
        yield "r2_position", "the images are smaller than patches of 32 px: --patch N"
    for target in can.targets:
        needed = target.spec.columns
        if absent := [name for name in needed if name not in can.param_names]:
            yield f"r2_{target.key}", f"the shards have no {', '.join(absent)}"
        elif is_augmentation(target.spec) and set(needed) <= set(can.constant):
            yield f"r2_{target.key}", "constant: the same in all views"
        else:
            yield _reading(target, can, config)


def _reading(target: ActionTarget, can: Capabilities, config: EvalConfig) -> ProbeTask:
    """The probe that reads `target` from z of two views, or of one."""
    views, width = 2, target.spec.size
    if target.absolute:
        (term,) = target.spec.terms
        inputs, views, width = rotation_of_view(term), 1, 4
    elif is_augmentation(target.spec):
        whole_draw = can.author and isinstance(can.method, Aggregating)
        inputs, views = augmentation_between(target.spec, whole_draw=whole_draw), can.most_views
    else:
        inputs = action_between(target.spec)
    epochs = config.epochs if target.deep else config.linear_regressor_epochs
    standardise = config.standardise and not target.deep
    return regression(
        f"r2_{target.key}", inputs, views, width, epochs,
        deep=target.deep, standardise=standardise, degrees=bool(target.angle),
    )  # fmt: skip


def position(config: EvalConfig) -> ProbeTask:
    """How far the second of two patches lies from the first, from z of both, whatever the run was trained on."""
    between, epochs = action_between(POSITION_TARGET.spec), config.linear_regressor_epochs
    return regression("r2_position", between, 2, 2, epochs, deep=False, standardise=config.standardise)


def _path(can: Capabilities, config: EvalConfig) -> Found:
    way, declared, method = path_of(can.action), can.way, can.method
    if not way.terms or not isinstance(method, Aggregating):
        return
    if can.no_path:
        yield "r2_path", can.no_path
        return
    sizes = tuple(m for m in config.path_sizes if m < can.most_views)
    yield from ((f"r2_path.{m}", _too_few(m + 1, can)) for m in config.path_sizes if m not in sizes)
    if not sizes:
        return
    # No linear function of angles gives the sine of their sum.
    deep = rotation_term(way) is not None or any(term.op == "angle_difference" for term in way.terms)
    epochs = config.epochs if deep or declared else config.linear_regressor_epochs
    measured, width = (declared.encoded, declared.size) if declared else (action_of(way), way.size)
    for name, (vision, acting) in ABLATIONS.items():
        shown = path_of_prefixes(method, can.action, measured, sizes, vision=vision, acting=acting)
        yield regression(
            f"r2_path.{name}", shown, max(sizes) + 1, width, epochs, deep=deep,
            standardise=(config.standardise or declared is not None) and not deep,
            sizes=sizes, draws=min(config.aggregate_draws, epochs),
        )  # fmt: skip


def _too_few(needed: int, can: Capabilities) -> str:
    return f"needs {needed} views, a sample has {can.most_views}"
