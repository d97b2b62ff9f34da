"""A run directory from a checkpoint that seq-JEPA's authors released, or that their code wrote.

That code (hafezgh/seq-jepa@73e0550 main_transformed_views.py:344-351, main_pls.py:323-330) saves a dict: "model", which
holds probes that were trained beside it too, "optimizer", "min_loss", "epoch", "run_id" and perhaps "lr_scheduler".
A bare state dict is taken as well, and names that begin with "module.". The names are those of its models.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqjepa.config import RunConfig
from seqjepa.data.actions import action_name, as_spec
from seqjepa.methods import build_method
from seqjepa.paper.sets import NORMALISATIONS, SETS
from seqjepa.recipes import load_recipe
from seqjepa.released.weights import MOST_BYTES, Imported, fit, load_file, state_dict_of, with_prefix_of, write_run
from seqjepa.training.data import fixating, open_training_data
from seqjepa.training.run import DataInfo
from shards.errors import UsageError

# Ours: theirs. Names not listed are the same in both.
PREFIXES = {
    "action_embedding.proj.": "action_proj.0.",
    "action_embedding.norm.": "action_proj.1.",
    "aggregator.token": "agg_token",
    "aggregator.encoder.layers.": "transformer_encoder.transformer_encoder.layers.",
    "aggregator.encoder.norm.": "transformer_encoder.norm.",
}
# Probes beside the training, heads of its evaluation, and what no method here has a place for.
UNUSED = (
    *("online_linprobe.", "online_equiprobe.", "online_res_probe.", "online_agg_probe."),
    *("agg_classifier.", "res_classifier.", "pos_regressor.", "rot_regressor.", "color_regressor."),
    *("blur_regressor.", "crop_regressor.", "jitter_regressor."),
)
OF_ACTIONS = "action_proj."
"""On patches, the released model has an embedding of actions even where it is told none (models.py:88-114)."""
MODEL, EPOCH = "model", "epoch"
# Of three released checkpoints and two ablations, by what shapes tell: numbers of an action, side of the first filters.
RECIPES = {
    (4, 7): "3die-rot-M3",
    (6, 7): "3die-rotcolour-M4",
    (2, 3): "stl-pls-M4",
    (0, 7): "3die-noact-M3",
    (0, 3): "stl-pls-noact-M4",
}


def author_key(name: str) -> str:
    """The released name of our state-dict entry `name`. The mapping is one to one and shapes are equal."""
    return with_prefix_of(name, PREFIXES)


@dataclass(frozen=True)
class ImportedCheckpoint(Imported):
    """recipe: whose settings it has; epochs: of training, as the file (epochs_known) or else the recipe says."""

    recipe: str
    epochs: int
    epochs_known: bool


def import_weights(
    file: Path,
    out: Path,
    *,
    recipe: str = "",
    settings: tuple[str, ...] = (),
    shards: Path | None = None,
    overwrite: bool = False,
) -> ImportedCheckpoint:
    """Make `out` the finished run of the checkpoint, of author fidelity, to be evaluated and used like any other.

    recipe    of the run; "": told by the shapes.   settings: "model.heads=8" …, as after --set
    shards    from which sizes and action are taken; None: those of the recipe's own data set

    UsageError: no such file, no telling recipe, an `out` that holds something else. FormatError: it is no checkpoint of
    such a run, with all that is missing, unknown or of another shape in one line. ConfigError: shards do not fit.
    """
    released, epoch = _read(file)
    recipe = recipe or _recipe_of(released, file)
    config = load_recipe(recipe, [f"name={recipe}-authors", "fidelity=author", *settings])
    if config.method != "seq_jepa":
        raise UsageError(f"recipe {recipe} is of {config.method}; give one of seq_jepa (`seqjepa recipes ls`)")
    config, data = _fed_with(config, shards)
    with torch.device("meta"):
        module = build_method(config, data.action_size)
    state, unused = _fitting(file, released, config, module)
    module.load_state_dict(state, assign=True)
    epochs = epoch or config.optim.epochs
    written = write_run(module, file, out, (config, data), unused, epochs=epochs, overwrite=overwrite)
    return ImportedCheckpoint(**vars(written), recipe=recipe, epochs=epochs, epochs_known=epoch > 0)


def _read(file: Path) -> tuple[dict[str, Tensor], int]:
    """Weights by their released names, and epochs of training; 0: the file does not say."""
    found = load_file(file, "a checkpoint of hafezgh/seq-jepa", MOST_BYTES)
    epoch: Any = 0
    if isinstance(found, Mapping) and isinstance(found.get(MODEL), Mapping):
        found, epoch = found[MODEL], found.get(EPOCH, 0)
    known = isinstance(epoch, int) and not isinstance(epoch, bool) and 0 < epoch < 10**6
    return state_dict_of(found, file), epoch if known else 0


def _recipe_of(released: Mapping[str, Tensor], file: Path) -> str:
    shapes = {name: tuple(tensor.shape) for name, tensor in released.items()}
    filters, token = shapes.get("encoder.conv1.weight", ()), shapes.get("agg_token", ())
    predictor, action = shapes.get("predictor.0.weight", ()), shapes.get("action_proj.0.weight", ())
    told = len(predictor) == 2 and len(token) == 3 and predictor[1] > token[2] and len(action) == 2
    found = (action[1] if told else 0, filters[-1] if len(filters) == 4 else 0)
    if not token or found not in RECIPES:
        what = f"actions of {found[0]} numbers and filters of {found[1]}×{found[1]}" if token else "no [AGG] token"
        raise UsageError(
            f"{file} has {what}, as no released checkpoint of seq-JEPA (those are {', '.join(RECIPES.values())}); "
            "name its recipe with --recipe (`seqjepa recipes ls`)"
        )
    return RECIPES[found]


def _fitting(
    file: Path, released: dict[str, Tensor], config: RunConfig, module: nn.Module
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict under the module's names, and whose entries have no place in it."""
    wanted = {author_key(name): (name, tensor) for name, tensor in module.state_dict().items()}
    left = UNUSED if config.model.condition != "none" else (*UNUSED, OF_ACTIONS)
    unused = [name for name in released if name.startswith(left)]
    state = fit(released, wanted, unused, f"{file} does not hold the weights of a run of {config.name}")
    return state, tuple(sorted({name.partition(".")[0] for name in unused}))


def _fed_with(config: RunConfig, shards: Path | None) -> tuple[RunConfig, DataInfo]:
    """What the model was trained on: as the shards say, or the recipe's data set as the paper has it."""
    if shards is not None:
        source = open_training_data(shards, config)
        return source.config, source.data
    data, how, known = config.data, fixating(config), SETS.get(config.data.set)
    if known is None or data.normalisation not in NORMALISATIONS:
        raise UsageError(f"recipe of {config.name} is not of the paper's data sets; say with --shards what it saw")
    whole = data.image_size or known.resolution
    seen = how.patch if how else whole
    augmented = data.augment != "none"
    image = whole if how or augmented else 0
    kind = "saliency" if how else "image" if augmented else "views"
    info = DataInfo(
        *(action_name(data.action), as_spec(data.action).size, *NORMALISATIONS[data.normalisation], seen, seen, kind),
        split=data.split or ("unlabeled" if how and known.slug.startswith("stl") else "train"),
        fixating=asdict(how) if how else {},
        image_height=image,
        image_width=image,
        augment=data.augment,
    )  # fmt: skip
    return config, info
