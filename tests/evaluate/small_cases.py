"""Cases for tests of studies: banks made by hand, or a run on shards, without training anything first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqjepa.config import EvalConfig
from seqjepa.data.actions import PRESETS
from seqjepa.evaluate.encode import SplitFeatures, encode_splits
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.probes import Bench
from seqjepa.evaluate.studies import Capabilities, EvalContext, capabilities_of
from seqjepa.training.checkpoint import LoadedRun, load_run
from shards.reader import ShardSet

CPU = torch.device("cpu")
ROTATIONS = ("rot_x", "rot_y", "rot_z")


def bank_of(z: np.ndarray, labels: np.ndarray, params: np.ndarray, **fields: Any) -> Features:
    """z [S, N, D], labels [S], params [S, N, 3] (rotations); all N views are distinct unless `fields` say otherwise."""
    given = {"n_views": np.full(len(z), z.shape[1]), "param_names": ROTATIONS, **fields}
    return Features(torch.from_numpy(z).float(), given.pop("n_views"), params, given.pop("param_names"),
                       torch.from_numpy(labels).long(), **given)  # fmt: skip


def case_of(loaded: LoadedRun, stored: ShardSet, banks: SplitFeatures, **fields: Any) -> EvalContext:
    """fields: of EvalContext, and `epochs`, `m_val` and `val_draws`."""
    epochs, draws = fields.pop("epochs", 6), fields.pop("val_draws", 1)
    config = EvalConfig(m_val=fields.pop("m_val", (1, 2, 4)), probe_epochs=epochs, agg_draws=4, val_draws=draws)
    can = fields.pop("can", None) or capabilities_of(loaded, stored, banks, config, CPU)
    bench = Bench(banks.train, banks.val, CPU, 0, draws)
    return EvalContext(loaded, stored, banks, can, config, bench, progress=False, **fields)


def case_of_run(run: Path, shards: Path, **fields: Any) -> EvalContext:
    loaded, stored = load_run(run), ShardSet.open(shards)
    banks = encode_splits(loaded, stored, EvalConfig(m_val=(1, 2, 4), probe_epochs=1, agg_draws=1), CPU, progress=False)
    return case_of(loaded, stored, banks, **fields)


def handmade_case(loaded: LoadedRun, shards: Path, train: Features, val: Features, **fields: Any) -> EvalContext:
    """The run's method shown banks that it did not make."""
    stored, banks = ShardSet.open(shards), SplitFeatures(train, val, ("train", "val"), 16, "run")
    classes = int(max(train.labels.max(), val.labels.max())) + 1
    can = Capabilities(
        loaded.method, PRESETS["rotation"], classes, train.param_names, min(train.most_views, val.most_views),
        labelled=int(val.labels.min()) >= 0,
    )  # fmt: skip
    return case_of(loaded, stored, banks, can=can, **fields)
