"""What a world of frames and commands taught a run, in one picture: loss, R² of the state, rollouts.

    python examples/figures.py runs/pendulum runs/pendulum-blind --out docs/pendulum.png

The first run was evaluated with and without --untrained, the second was trained without actions (model.condition=none)
and evaluated; both with --suite 3diebench, which has the rollouts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

COLOURS = {"trained": "#1f6fb4", "without actions": "#d9822b", "untrained": "#9aa5b1"}
CONTEXT = "3"  # views that z_AGG is of


def read(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text(encoding="utf-8"))


def losses(ax: Axes, runs: dict[str, Path]) -> None:
    for name, run in runs.items():
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        ax.plot([line["step"] for line in lines], [line["loss"] for line in lines], color=COLOURS[name], label=name)
    ax.set(xlabel="step", ylabel="loss (1 − cosine)", title="Prediction of the next frame", yscale="log")
    ax.legend(frameon=False)


def state(ax: Axes, results: dict[str, dict[str, Any]]) -> None:
    """R² of what a frame shows and of what it does not."""
    asked = {
        "angle,\none frame": lambda found: found["r2_indiv_angle_avg"],
        "velocity,\none frame": lambda found: found["r2_indiv_velocity_avg"],
        f"velocity, z_AGG\nof {CONTEXT} frames": lambda found: found["r2_indiv_velocity_agg"][CONTEXT],
    }
    width = 0.8 / len(results)
    for place, (name, found) in enumerate(results.items()):
        at = [k + (place - (len(results) - 1) / 2) * width for k in range(len(asked))]
        bars = ax.bar(at, [value(found) for value in asked.values()], width, color=COLOURS[name], label=name)
        ax.bar_label(bars, fmt="%.2f", fontsize=7)
    ax.set_xticks(range(len(asked)), list(asked))
    ax.set(ylim=(-0.1, 1.15), ylabel="R²", title="State, episodes never seen")
    ax.axhline(0, color="black", linewidth=0.6)


def rollouts(ax: Axes, results: dict[str, dict[str, Any]]) -> None:
    """Does a prediction, made from predictions, find the true frame among 64 of its episode?"""
    curves = {name: found["rollout"]["mrr"] for name, found in results.items() if "rollout" in found}
    for name, curve in curves.items():
        ax.plot([int(step) for step in curve], list(curve.values()), "o-", ms=3, color=COLOURS[name], label=name)
    first = next(found["rollout"] for found in results.values() if "rollout" in found)
    ax.axhline(first["mrr_chance"], color="black", linewidth=0.8, linestyle=":")
    ax.text(8, first["mrr_chance"] - 0.01, "chance", ha="right", va="top", fontsize=7)
    ax.set(xlabel="frames ahead", ylabel="mean reciprocal rank", title="Rollouts over 8 steps", ylim=(0, None))
    ax.legend(frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("without_actions", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    own, blind = read(asked.run), read(asked.without_actions)
    results = {"trained": own["trained"], "without actions": blind["trained"], "untrained": own["untrained"]}
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10})
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    losses(axes[0], {"trained": asked.run, "without actions": asked.without_actions})
    state(axes[1], results)
    rollouts(axes[2], results)
    figure.savefig(asked.out, dpi=100)
    print(asked.out)


if __name__ == "__main__":
    main()
