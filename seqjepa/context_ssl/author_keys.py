"""Our parameters of ContextSSL by their authors' names (Sharut/In-Context-Symmetries@124736d models.py)."""

from __future__ import annotations

import re

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
_BLOCK = re.compile(r"transformer\.layers\.(\d+)\.(.*)")


def author_key(name: str) -> str:
    """The released name of our state-dict entry `name`. The mapping is one to one and shapes are equal."""
    if block := _BLOCK.fullmatch(name):
        return f"predictor.transformer.h.{block[1]}.{_renamed(block[2], IN_BLOCK)}"
    return _renamed(name, PREFIXES)


def _renamed(name: str, prefixes: dict[str, str]) -> str:
    for ours, theirs in prefixes.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)
