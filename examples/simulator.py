"""A simulator that somebody else wrote, as a folder of frames with a spreadsheet: gymnasium's Pendulum-v1.

    python examples/simulator.py --out data/pendulum

A random torque, new at each recorded frame, swings a pendulum for some seconds; then another episode begins. The
folder gets what `seqjepa-data shard manifest` reads: PNG files, metadata.csv with a row for each frame, and
actions.toml, which says that `torque` is a command. Row i holds the torque that leads from frame i to frame i + 1 of
its episode; that of an episode's last row leads nowhere. The picture shows the angle, and neither velocity nor torque.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from shards.extras import missing_line

SIDE = 48  # px of a frame
SCREEN, MARGIN = 300, 54  # px that are drawn, and how many are cut off on each side; four become one
SKIP = 2  # steps of the simulator, 0.05 s each, from one frame to the next; the torque stays the same
MOST_TORQUE, MOST_VELOCITY = 2.0, 4.0  # N m; rad/s at the start
COLUMNS = ("file_name", "sequence", "step", "split", "angle", "velocity", "torque")
ACTIONS = """\
# What takes a frame to the next: the torque, averaged where frames are skipped.
[units]
angle = "rad"
velocity = "rad/s"
torque = "N m"

[[action]]
op = "command"
columns = ["torque"]
over = "mean"
"""


class Frame(NamedTuple):
    """pixels uint8 [48, 48, 3]; angle in rad in [−π, π), 0 upright; velocity in rad/s; torque in N m, from here on."""

    pixels: np.ndarray
    angle: float
    velocity: float
    torque: float


def episode(env: Any, steps: int, seed: int) -> Iterator[Frame]:
    """One episode; the same seed gives the same frames."""
    env.reset(seed=seed, options={"x_init": np.pi, "y_init": MOST_VELOCITY})
    torques = np.random.default_rng([seed, 1]).uniform(-MOST_TORQUE, MOST_TORQUE, steps).astype(np.float32)
    for torque in torques:
        angle, velocity = env.unwrapped.state
        yield Frame(picture(env), (angle + np.pi) % (2 * np.pi) - np.pi, velocity, float(torque))
        for _ in range(SKIP):
            env.step(np.array([torque]))


def picture(env: Any) -> np.ndarray:
    """The pendulum as it hangs, uint8 [48, 48, 3]."""
    env.unwrapped.last_u = None  # or else an arrow shows the torque
    drawn = Image.fromarray(env.render())
    box = (MARGIN, MARGIN, SCREEN - MARGIN, SCREEN - MARGIN)
    return np.asarray(drawn.resize((SIDE, SIDE), Image.Resampling.BOX, box=box))


def open_simulator() -> Any:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import gymnasium
        import pygame  # noqa: F401
    except ImportError:
        sys.exit(f"error: {missing_line('gymnasium', 'the simulator')}")
    env = gymnasium.make("Pendulum-v1", render_mode="rgb_array", max_episode_steps=10**9)
    env.unwrapped.screen_dim = SCREEN  # pyright: ignore[reportAttributeAccessIssue]
    return env


def write(out: Path, episodes: int, steps: int, seed: int) -> None:
    """Frames of all episodes, metadata.csv and actions.toml. Every sixth episode is for validation."""
    rows = []
    env = open_simulator()
    for number in tqdm(range(episodes), desc="episodes", unit="", disable=None):
        name = f"episode_{number:04d}"
        (out / name).mkdir(parents=True)
        for step, frame in enumerate(episode(env, steps, seed * 1_000_003 + number)):
            file = f"{name}/{step:03d}.png"
            Image.fromarray(frame.pixels).save(out / file)
            state = (f"{value:.6f}" for value in frame[1:])
            rows.append((file, name, step, "val" if number % 6 == 5 else "train", *state))
    env.close()
    (out / "actions.toml").write_text(ACTIONS, encoding="utf-8")
    with (out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    print(f"{out}: {len(rows):,} frames of {episodes} episodes, metadata.csv, actions.toml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--episodes", type=int, default=240)
    parser.add_argument("--steps", type=int, default=100, help="frames of an episode, 0.1 s apart")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.out.exists():
        parser.error(f"{asked.out} is there already; give the name of a new folder")
    if asked.episodes < 6 or asked.steps < 2 or asked.seed < 0:
        parser.error("needs 6 episodes or more (every sixth is for validation), 2 steps or more, and no negative seed")
    write(asked.out, asked.episodes, asked.steps, asked.seed)


if __name__ == "__main__":
    main()
