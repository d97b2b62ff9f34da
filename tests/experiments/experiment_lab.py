"""A scale at which a run of an experiment on noise takes a second."""

from __future__ import annotations

from pathlib import Path

from sweep_lab import small_scale_file

EXPERIMENT = """\
[compare]
views_per_step = 16
evaluation = { suite = "retrieval", m_val = [1, 2], probe_epochs = 1, agg_draws = 1 }
[experiment]
steps = 12
lengths = [1, 2]
looks = []
changed_at = 2
"""


def experiment_scale(folder: Path, more: str = "") -> Path:
    return small_scale_file(folder, EXPERIMENT + more)
