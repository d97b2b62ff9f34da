"""Jobs small enough to be trained and evaluated in seconds."""

from __future__ import annotations

from pathlib import Path

from small_backbone import SMALL

from seqjepa.experiments.job import Job

SETTINGS = (
    SMALL, "model.width=0.125", "model.layers=1", "model.ff_mult=1", "model.action_dim=8", "model.predictor_hidden=16",
    "data.image_size=0", "data.normalisation=shards", "optim.epochs=2", "optim.batch_size=8",
    "optim.warmup_epochs=1",
)  # fmt: skip
EVALUATION = {"m_val": (1,), "probe_epochs": 2, "agg_draws": 2}


def small_job(shards: Path, **changes: object) -> Job:
    fields = {"name": "small", "recipe": "3die-rot-M1", "settings": SETTINGS, "shards": shards}
    return Job(**{**fields, "evaluation": EVALUATION, **changes})  # type: ignore[arg-type]
