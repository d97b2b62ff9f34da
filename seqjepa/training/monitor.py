"""How a run is going: spread and effective rank of features, two online probes, and their sums over an epoch.

The numbers that count come from `seqjepa evaluate` (frozen features, held-out objects). Nothing here touches the
method: features are detached, and the probes have an optimizer of their own.

Shape letters: B batch, n rows, V views that went through the online encoder, D and W widths of z and z_AGG, A action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import normalize

from seqjepa.compiling import CompiledForGpu
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods.base import StepOutput
from seqjepa.training.distributed import World, average_gradients, gather, packed, sum_over_ranks, unpacked
from shards.errors import FailureError

# Unit vectors spread evenly over all D directions have a standard deviation of 1/√D in each.
COLLAPSED_STD = 0.01
COLLAPSED_RANK = 1.5


def no_moments(width: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Of unit-length features [D], before any row: mean and scatter, updated batch by batch and mergeable over ranks.

    count  float64 [];  mean  float64 [D];  scatter  float64 [D, D]: Σ (u − mean)(u − mean)ᵀ over the n rows u so far
    """
    shapes = {"count": (), "mean": (width,), "scatter": (width, width)}
    return {name: torch.zeros(shape, dtype=torch.float64, device=device) for name, shape in shapes.items()}


def add_features(moments: dict[str, Tensor], features: Tensor) -> None:
    """features: [..., D] of any float dtype. Centred before the product, so that TF32 costs no digits."""
    rows = normalize(features.detach().flatten(0, -2).float(), dim=-1)
    mean = rows.mean(0)
    centred = rows - mean
    merge_moments(moments, float(len(rows)), mean.double(), centred.T @ centred)


def merge_moments(moments: dict[str, Tensor], count: Tensor | float, mean: Tensor, scatter: Tensor) -> None:
    """Chan's update, in place: the moments of the union of two disjoint sets of rows."""
    total = moments["count"] + count
    delta = mean - moments["mean"]
    share = count / total.clamp(min=1)
    moments["scatter"].add_(scatter).addr_(delta * (moments["count"] * share), delta)
    moments["mean"] += delta * share
    moments["count"] += count  # torch 2.11 compiles a copy_ of `total` away


def spread_of(count: Tensor, scatter: Tensor) -> dict[str, float]:
    """{"std", "rank"}; see `mean_std` and `effective_rank`. Empty when nothing was seen."""
    if count == 0:
        return {}
    covariance = scatter / count
    return {"std": mean_std(covariance), "rank": effective_rank(covariance)}


def mean_std(covariance: Tensor) -> float:
    """Standard deviation of a coordinate, mean over the D of them, × √D: at most 1, reached when evenly spread."""
    std = covariance.diagonal().clamp(min=0).sqrt().mean()
    return float(std) * math.sqrt(len(covariance))


def effective_rank(covariance: Tensor) -> float:
    """exp of the entropy of the singular values of the centred features (Roy & Vetterli 2007), 1 … D.

    The singular values of the features are the roots of the covariance's eigenvalues.
    """
    values = torch.linalg.eigvalsh(covariance.double()).clamp(min=0).sqrt()
    if values.sum() == 0:
        return 1.0
    p = values / values.sum()
    return float(torch.exp(-torch.xlogy(p, p).sum()))


def collapse(summary: dict[str, float]) -> str | None:
    """What kind of collapse the numbers of `spread_of` show, or None."""
    if not summary:
        return None
    if summary["std"] < COLLAPSED_STD:
        return f"complete collapse: every input gives the same feature (std {summary['std']:.4f})"
    if summary["rank"] < COLLAPSED_RANK:
        return f"dimensional collapse: features lie on a line (effective rank {summary['rank']:.2f})"
    return None


# Names in metrics.jsonl for the features of StepOutput.
FEATURE_NAMES = {"z": "z", "z_agg": "agg"}


class EpochMeter:
    """Sums over the sequences of one epoch so far: loss, probe scores, moments of z and z_AGG.

    widths: shape of each of the method's features for any batch. Updating never waits for the GPU. compile: there, in a
    few kernels; smaller batches as they are. whole: see probe_scores.
    """

    def __init__(
        self,
        widths: dict[str, torch.Size],
        action_size: int,
        device: torch.device | str,
        compile: bool = False,
        whole: Sequence[int] = (),
    ):
        self.device, self._whole = device, whole
        compiles = compile and torch.device(device).type == "cuda"
        self._compiled = CompiledForGpu(add_up, "sums over an epoch", combine=True) if compiles else None
        A = action_size
        sizes = {"rows": (), "loss": (), "labelled": (), "correct": (), "sq_err": (A,), "y": (A,), "y_sq": (A,)}
        self.sums = {n: torch.zeros(s, dtype=torch.float64, device=device) for n, s in sizes.items()}
        self.moments = {n: no_moments(widths[n][-1], device) for n in FEATURE_NAMES if n in widths}

    def reset(self) -> None:
        """In place: a CUDA graph goes on adding to the same tensors."""
        for value in (*self.sums.values(), *(value for moments in self.moments.values() for value in moments.values())):
            value.zero_()

    @torch.no_grad()
    def update(self, output: StepOutput, probe_sums: dict[str, Tensor], rows: int) -> None:
        of_features = {name: (moments, output.features[name]) for name, moments in self.moments.items()}
        given = (self.sums, output.loss.detach(), probe_sums, of_features, float(rows))
        if self._compiled is None or self._compiled(rows, *given) is None:
            add_up(*given)

    def collect(self, world: World) -> None:
        """Bring what all ranks have summed to rank 0, in two messages; the others begin again at zero.

        FailureError on every rank when a loss was not finite, so that such weights are never saved.
        """
        sum_over_ranks(world, list(self.sums.values()))
        if not math.isfinite(float(self.sums["loss"])):
            raise FailureError("the loss is not finite; what is saved, if anything, is from before. Lower optim.lr")
        if world.size > 1:
            self._merge_moments(world)
        if not world.main:
            self.reset()

    def _merge_moments(self, world: World) -> None:
        held = [value for moments in self.moments.values() for value in moments.values()]
        of_ranks = [iter(unpacked(flat, held)) for flat in gather(world, packed(held))]
        for name, mine in self.moments.items():
            self.moments[name] = no_moments(len(mine["mean"]), self.device)
            for values in of_ranks:
                merge_moments(self.moments[name], *islice(values, 3))

    def summary(self) -> dict[str, object]:
        """One epoch in numbers. std: 1 is spread evenly, 0 is collapse; rank: effective rank."""
        of_features = [value for moments in self.moments.values() for value in (moments["count"], moments["scatter"])]
        values = [*self.sums.values(), *of_features]
        held = unpacked(packed(values).cpu(), values)  # in one copy, as each is waited for
        sums, left = dict(zip(self.sums, held, strict=False)), held[len(self.sums) :]
        moments = zip(self.moments, left[::2], left[1::2], strict=True)
        rows = float(sums["rows"])
        found: dict[str, object] = {"loss": float(sums["loss"]) / rows, "samples": int(rows)}
        for name, count, scatter in moments:
            spread = spread_of(count, scatter)
            found |= {f"{FEATURE_NAMES[name]}_{key}": value for key, value in spread.items()}
            if verdict := collapse(spread):
                found.setdefault("collapse", f"{name}: {verdict}")
        return found | probe_scores(sums, rows, self._whole)

    def state_dict(self) -> dict[str, dict]:
        return {"sums": self.sums, "moments": self.moments}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        for name, value in state["sums"].items():
            self.sums[name].copy_(value)
        for name, moments in self.moments.items():
            for part, value in state["moments"][name].items():
                moments[part].copy_(value)


def add_up(
    sums: dict[str, Tensor],
    loss: Tensor,
    probe_sums: dict[str, Tensor],
    of_features: dict[str, tuple[dict[str, Tensor], Tensor]],
    rows: float,
) -> Tensor:
    """One batch of `rows` onto `sums` and moments of features, in place. Returns the sum of losses."""
    sums["rows"] += rows
    sums["loss"] += loss.double() * rows
    for name, value in probe_sums.items():
        sums[name] += value
    for moments, features in of_features.values():
        add_features(moments, features)
    return sums["loss"]


PROBE_HIDDEN = 1024
PROBE_LR = 1e-3  # Adam's default (docs/fidelity.md #33)
ALONE = World()


class OnlineProbes:
    """Class from z_AGG (linear) and action from the first two views' z (one hidden layer).

    widths: shapes of the method's features. Without classes there is no classifier, with a single view or no action no
    regressor; without z_AGG the classifier sees z of the first view. `enabled=False` leaves out both.
    """

    def __init__(
        self,
        widths: dict[str, torch.Size],
        classes: int,
        action_size: int,
        device: torch.device | str = "cpu",
        enabled: bool = True,
    ):
        self.pooled = "z_agg" if "z_agg" in widths else "z"
        self.heads = nn.ModuleDict()
        _, V, D = widths["z"]
        if enabled and classes:
            self.heads["class"] = nn.Linear(widths[self.pooled][-1], classes)
        if enabled and V >= 2 and action_size:
            layers = (nn.Linear(2 * D, PROBE_HIDDEN), nn.ReLU(), nn.Linear(PROBE_HIDDEN, action_size))
            self.heads["action"] = nn.Sequential(*layers)
        self.heads.to(device)
        # fused: a kernel instead of dozens, and on the CPU a third of the time
        self.optimizer = torch.optim.Adam(self.heads.parameters(), lr=PROBE_LR, fused=True) if self.heads else None

    def learn(self, features: dict[str, Tensor], seq: ViewSequence, world: World) -> dict[str, Tensor]:
        """See learn_from. Without heads there is nothing to sum."""
        if self.optimizer is None:
            return {}
        return self.learn_from(features["z"], features[self.pooled], seq.actions, seq.labels, world)

    def learn_from(
        self, z: Tensor, pooled: Tensor, actions: Tensor, labels: Tensor, world: World = ALONE
    ) -> dict[str, Tensor]:
        """One step. Returns sums over the batch from before it: "labelled", "correct" [], "sq_err", "y", "y_sq" [A].

        A batch is scored before the probes learn from it, so the scores are not those of a fit to itself.
        """
        assert self.optimizer is not None
        losses, sums = [], {}
        if "class" in self.heads:
            losses.append(self._classify(pooled, labels, sums))
        if "action" in self.heads:
            losses.append(self._regress(z, actions[:, 0], sums))
        torch.stack(losses).sum().backward()
        average_gradients(world, self.heads)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sums

    def _classify(self, pooled: Tensor, labels: Tensor, sums: dict[str, Tensor]) -> Tensor:
        pooled = pooled.detach().float()
        logits = self.heads["class"](pooled if pooled.ndim == 2 else pooled[:, 0])
        labelled = (labels >= 0).sum()
        sums |= {"labelled": labelled, "correct": (logits.argmax(1) == labels).sum()}
        return F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / labelled.clamp(min=1)

    def _regress(self, z: Tensor, actions: Tensor, sums: dict[str, Tensor]) -> Tensor:
        error = (self.heads["action"](z[:, :2].detach().float().flatten(1)) - actions).square()
        sums |= {"sq_err": error.detach().sum(0), "y": actions.sum(0), "y_sq": actions.square().sum(0)}
        return error.mean()

    def state_dict(self) -> dict[str, Any]:
        return {"heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict() if self.optimizer else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.heads.load_state_dict(state["heads"])
        if self.optimizer is not None:
            groups = self.optimizer.state_dict()["param_groups"]  # as built, for this device
            self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})


SPREAD_NOISE = 1e-6
"""Of sums of squares: what a constant that was added up in float32 seems to vary by."""


def probe_scores(sums: dict[str, Tensor], rows: float, whole: Sequence[int] = ()) -> dict[str, float]:
    """Summed scores of `rows` sequences → {"probe_top1" in 0..1, "probe_r2": mean over A of 1 − error / variance}.

    whole: for each of A which quantity it is of, over whose numbers both are summed first. Of small rotations the w of
    a quaternion hardly varies, and no error of a head is small beside that.
    """
    found = {}
    if sums["labelled"] > 0:
        found["probe_top1"] = float(sums["correct"] / sums["labelled"])
    spread = sums["y_sq"] - sums["y"].square() / max(rows, 1)
    varies = spread > torch.maximum(SPREAD_NOISE * sums["y_sq"], torch.full_like(spread, 1e-12 * rows))
    if varies.any():
        names, of = torch.tensor(whole or range(len(spread)))[varies].unique(return_inverse=True)
        error, total = (v.new_zeros(len(names)).index_add(0, of, v[varies]) for v in (sums["sq_err"], spread))
        found["probe_r2"] = float((1 - error / total).mean())
    return found
