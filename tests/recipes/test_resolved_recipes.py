"""Every recipe resolves to exactly the settings that it had when each of the 119 was a file of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqjepa.recipes import flatten, load_recipe, names

STORED = json.loads((Path(__file__).parent / "data" / "resolved_before_extends.json").read_text())
DEFAULTS: dict[str, object] = STORED["defaults"]
CHANGED = {"train.compile": True}
"""What a GPU does by default since; nothing that is learned."""


def settings(name: str, fidelity: str) -> dict[str, object]:
    overrides = [] if fidelity == "paper" else [f"fidelity={fidelity}"]
    return flatten(load_recipe(name, overrides).model_dump(mode="json"))


def test_no_recipe_was_lost() -> None:
    assert len(STORED["paper"]) == 119
    assert set(STORED["paper"]) <= set(names())


@pytest.mark.parametrize("fidelity", ["paper", "author"])
@pytest.mark.parametrize("name", STORED["paper"])
def test_a_recipe_resolves_to_the_settings_it_always_had(name: str, fidelity: str) -> None:
    now = settings(name, fidelity)
    assert {key: now[key] for key in DEFAULTS} == DEFAULTS | STORED[fidelity][name] | CHANGED
