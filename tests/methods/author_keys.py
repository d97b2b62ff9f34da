"""How our parameters are called in the authors' released state dicts (hafezgh/seq-jepa@73e0550 models.py)."""

from __future__ import annotations

# Ours: theirs. Names not listed are the same in both.
PREFIXES = {
    "action_embedding.proj.": "action_proj.0.",
    "action_embedding.norm.": "action_proj.1.",
    "aggregator.token": "agg_token",
    "aggregator.encoder.layers.": "transformer_encoder.transformer_encoder.layers.",
    "aggregator.encoder.norm.": "transformer_encoder.norm.",
}


def author_key(name: str) -> str:
    """The released name of our state-dict entry `name`. The mapping is one to one and shapes are equal."""
    for ours, theirs in PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
