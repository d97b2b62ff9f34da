"""What is summed up over an epoch, kept on the device until the epoch ends, and part of a checkpoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seqjepa.methods.base import StepOutput
from seqjepa.training import online_probes
from seqjepa.training.diagnostics import FeatureMoments, collapse
from seqjepa.training.distributed import World, gather, sum_over_ranks
from shards.errors import FailureError

# Names in metrics.jsonl for the features of StepOutput.
SHORT = {"z": "z", "z_agg": "agg"}


class EpochMeter:
    """Sums over the sequences of one epoch so far: loss, probe scores, moments of z and z_AGG.

    widths: shape of each of the method's features for any batch. Updating never waits for the GPU.
    """

    def __init__(self, widths: dict[str, torch.Size], action_size: int, device: torch.device | str):
        self.widths, self.device = widths, device
        self.action_size = action_size
        self.reset()

    def reset(self) -> None:
        A = self.action_size
        sizes = {"rows": (), "loss": (), "labelled": (), "correct": (), "sq_err": (A,), "y": (A,), "y_sq": (A,)}
        self.sums = {n: torch.zeros(s, dtype=torch.float64, device=self.device) for n, s in sizes.items()}
        self.moments = {n: FeatureMoments(self.widths[n][-1], self.device) for n in SHORT if n in self.widths}

    @torch.no_grad()
    def update(self, output: StepOutput, probe_sums: dict[str, Tensor], rows: int) -> None:
        self.sums["rows"] += rows
        self.sums["loss"] += output.loss.detach().double() * rows
        for name, value in probe_sums.items():
            self.sums[name] += value
        for name, moments in self.moments.items():
            moments.update(output.features[name])

    def collect(self, world: World) -> None:
        """Bring what all ranks have summed to rank 0; the others begin again at zero.

        FailureError on every rank when a loss was not finite, so that such weights are never saved.
        """
        sum_over_ranks(world, self.sums.values())
        if not math.isfinite(float(self.sums["loss"])):
            raise FailureError("the loss is not finite; the last checkpoint is from before that. Lower optim.lr")
        for name, mine in self.moments.items():
            parts = [gather(world, value) for value in mine.state_dict().values()] if world.size > 1 else []
            if parts:
                self.moments[name] = FeatureMoments(len(mine.mean), self.device)
                for part in zip(*parts, strict=True):
                    self.moments[name].merge(*part)
        if not world.main:
            self.reset()

    def summary(self) -> dict[str, object]:
        """One epoch in numbers. std: 1 is spread evenly, 0 is collapse; rank: effective rank (diagnostics.py)."""
        rows = float(self.sums["rows"])
        found: dict[str, object] = {"loss": float(self.sums["loss"]) / rows, "samples": int(rows)}
        for name, moments in self.moments.items():
            spread = moments.summary()
            found |= {f"{SHORT[name]}_{key}": value for key, value in spread.items()}
            if verdict := collapse(spread):
                found.setdefault("collapse", f"{name}: {verdict}")
        return found | online_probes.scores({name: value.cpu() for name, value in self.sums.items()}, rows)

    def state_dict(self) -> dict[str, dict]:
        return {"sums": self.sums, "moments": {n: m.state_dict() for n, m in self.moments.items()}}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        for name, value in state["sums"].items():
            self.sums[name] = value.to(self.device)
        for name, moments in self.moments.items():
            moments.load_state_dict(state["moments"][name])
