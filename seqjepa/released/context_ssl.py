"""A run directory from the weights that ContextSSL's authors released: one bare state dict (paper §A.3).

The names of parameters are those of Sharut/In-Context-Symmetries@124736d models.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from seqjepa.config import RunConfig
from seqjepa.data.actions import action_name, as_spec
from seqjepa.methods import build_method
from seqjepa.paper.sets import NORMALISATIONS
from seqjepa.recipes import load_recipe
from seqjepa.released.weights import MOST_BYTES, Imported, fit, load_file, state_dict_of, with_prefix_of, write_run
from seqjepa.training.run import DataInfo

# Ours: theirs, as beginnings of names.
PREFIXES = {
    "encoder.": "enc.",
    "regressor.": "aug_predictor.",
    "transformer.read_in.": "predictor._read_in.",
    "transformer.read_out.": "predictor._read_out.",
    "transformer.norm.": "predictor.transformer.ln_f.",
}
# The same within the block that comes next.
IN_BLOCK = {
    "norm1.": "ln_1.",
    "norm2.": "ln_2.",
    "attention.qkv.": "attn.c_attn.",
    "attention.out.": "attn.c_proj.",
    "widen.": "mlp.c_fc.",
    "narrow.": "mlp.c_proj.",
}
# Heads that the released model has and never uses: a linear probe, and a regressor of relative parameters.
UNUSED = ("equiv_linear.", "rel_aug_predictor.")
BLOCK = re.compile(r"transformer\.layers\.(\d+)\.(.*)")


def author_key(name: str) -> str:
    """The released name of our state-dict entry `name`. The mapping is one to one and shapes are equal."""
    if block := BLOCK.fullmatch(name):
        return f"predictor.transformer.h.{block[1]}.{with_prefix_of(block[2], IN_BLOCK)}"
    return with_prefix_of(name, PREFIXES)


RECIPE = "context-ssl-3die"


def import_weights(
    file: Path, out: Path, *, config: RunConfig | None = None, resolution: int = 128, overwrite: bool = False
) -> Imported:
    """Make `out` the finished run of the weights in `file`, to be evaluated like any other.

    config: of the architecture; None: the released one. Raises UsageError for files that are not there or too large and
    for an `out` that holds something else, FormatError for what is not such a state dict.
    """
    config = config or author_config()
    with torch.device("meta"):
        module = build_method(config, as_spec(config.data.action).size)
    state, unused = read_released_weights(file, module)
    module.load_state_dict(state, assign=True)
    action, (mean, std) = config.data.action, NORMALISATIONS["3diebench"]
    data = DataInfo(action_name(action), as_spec(action).size, mean, std, resolution, resolution)
    return write_run(module, file, out, (config, data), unused, overwrite=overwrite)


def author_config() -> RunConfig:
    """The settings of the released weights, as a run's."""
    return load_recipe(RECIPE, ["name=context-ssl-authors", "fidelity=author"])


def read_released_weights(file: Path, module: nn.Module) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The file's tensors under our names, float32 (counters int64), and the names of entries that have no place.

    module: what they are to fit, on any device. Every shape is checked before anything is copied. FormatError says in
    one line what is missing, unknown or of another shape.
    """
    released = state_dict_of(load_file(file, "the released simclr_resnet18_epoch1000.pt (0.7 GB)", MOST_BYTES), file)
    wanted = {author_key(name): (name, tensor) for name, tensor in module.state_dict().items()}
    unused = tuple(sorted(name for name in released if name.startswith(UNUSED)))
    return fit(released, wanted, unused, f"{file} does not hold ContextSSL's weights"), unused
