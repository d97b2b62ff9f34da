"""SIE's halves are probed as the whole is, on their own columns of z."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import PROJECTED, SIZE, run_directory

from seqjepa.config import DataConfig, RunConfig
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.probes import Bench
from seqjepa.evaluate.results import format_table, read_results
from seqjepa.evaluate.run import evaluate_run
from seqjepa.training.run import DataInfo


def test_a_half_is_columns_of_views_and_of_whole_images():
    z, images = torch.arange(48.0).reshape(3, 4, 4), torch.arange(12.0).reshape(3, 4)
    bank = Features(z, np.full(3, 4), np.zeros((3, 4, 1)), ("x",), torch.zeros(3), z_image=images)
    half = Bench(bank, bank, torch.device("cpu"), 0).columns(slice(2, 4))
    assert half.train.z[1, 1].tolist() == [22, 23]
    assert half.val.z_image is not None
    assert half.val.z_image[2].tolist() == [10, 11]


@pytest.fixture
def sie_run(tmp_path: Path) -> Path:
    data = DataInfo("rotation", 4, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), SIZE, SIZE)
    return run_directory(
        tmp_path / "sie", RunConfig(name="tiny", method="sie", model=PROJECTED, data=DataConfig(context=1)), data
    )


def test_each_half_has_the_numbers_of_the_whole(sie_run: Path, shards: Path):
    found = evaluate_run(sie_run, shards, device="cpu", probe_epochs=3, progress=False)
    halves = found["halves"]
    wanted = {key for key in found if key.startswith(("top1", "r2", "rel_rot", "indiv_rot"))}
    assert {"top1_z", "r2_rel_rot_avg", "indiv_rot_deg"} <= wanted
    assert set(halves) == {"invariant", "equivariant"}
    assert wanted == set(halves["invariant"]) == set(halves["equivariant"])
    rel = {halves["invariant"]["r2_rel_rot_avg"], halves["equivariant"]["r2_rel_rot_avg"], found["r2_rel_rot_avg"]}
    assert len(rel) == 3
    assert set(found["intervals"]["halves"]["invariant"]) == wanted - {"rel_rot_deg_median", "indiv_rot_deg_median"}
    split = found["protocol"]["halves"]
    assert split["invariant"][1] == split["equivariant"][0]
    assert "top-1, z, equivariant half" in format_table(read_results(sie_run))
