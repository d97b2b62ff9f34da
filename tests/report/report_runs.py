"""Made-up run directories, as small as they can be: settings and numbers, no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqjepa import recipes
from seqjepa.paper.sets import CLASSES_SHA256, SETS_BY_NAME

SHA256_OF = {name: digest for digest, name in reversed(CLASSES_SHA256.items())}


def protocol_of(dataset: str = "3DIEBench", **other: Any) -> dict[str, Any]:
    """As account.py writes it; `dataset` one of the paper's, or any other."""
    return {
        "fidelity": "paper", "m_tr": 3, "epochs": 1000, "dataset": dataset,
        "classes_sha256": SHA256_OF.get(dataset, "0" * 64), "resolution": 128,
        "train_samples": 41_920, "val_samples": 10_552, "seed": 0,
        "probe_epochs": {"classification": 300, "rotation": 300, "hue": 50}, "skipped": {},
        "linear_regressors": "plain",
        **other,
    }  # fmt: skip


def write_run(
    folder: Path,
    recipe: str = "3die-rot-M3",
    *,
    settings: Sequence[str] = (),
    scores: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    trained_on: str = "",
    epochs: int | None = None,
) -> Path:
    """A run of a packaged recipe. scores: "trained" of results.json without its protocol; None: not evaluated."""
    config = recipes.load_recipe(recipe, settings)
    protocol = dict(protocol or protocol_of())
    protocol = {"fidelity": config.fidelity, "m_tr": config.data.context, "epochs": config.optim.epochs} | protocol
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(recipes.to_toml(config))
    shards = {"name": trained_on or protocol["dataset"], "train": "0" * 64}
    identity = {"kind": "seqjepa-run", "format": 1, "name": config.name, "shards": shards, "data": {}, "versions": {}}
    (folder / "run.json").write_text(json.dumps(identity))
    done = range(1, 1 + (config.optim.epochs if epochs is None else epochs))
    known = SETS_BY_NAME.get(protocol["dataset"])
    samples = known.samples if known else 100
    lines = [json.dumps({"epoch": epoch, "loss": 1 / epoch, "samples": samples}) for epoch in done]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if scores is not None:
        (folder / "results.json").write_text(json.dumps({"trained": {**scores, "protocol": protocol}}))
    return folder
