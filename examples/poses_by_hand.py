"""Are the actions of a photographed scene its camera matrices, multiplied by hand?

    python examples/poses_by_hand.py SHARDS TRANSFORMS.json

SHARDS were made of the scene by `seqjepa-data shard manifest`. Every two views of the split `train` are compared: the
action from the first to the second, as training sees it (float32), and M₁⁻¹M₂ of the file's matrices in float64. Files
give them with few digits: first prints how far they are from rotations, then, for the nearest rotations, the greatest
difference of an entry of the rotation, and of the translation in the scene's unit of length.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from seqjepa.data.actions import actions_between
from shards.reader import ShardSet


def differences(shards: Path, transforms: Path) -> tuple[int, float, float, float]:
    """(pairs of views, how far the file's matrices are from rotations, differences of rotations, of translations)"""
    split = ShardSet.open(shards).split("train")
    rows = np.arange(split.params.shape[1]) < split.n_views[:, None]
    params = split.params[rows]  # [F, P]: frames of the whole scene, a split of one sequence
    frames = json.loads(transforms.read_text(encoding="utf-8"))["frames"]
    beside = [frame for frame in frames if (transforms.parent / frame["file_path"]).exists()]
    matrices = np.array([frame["transform_matrix"] for frame in beside], np.float64)  # [F, 4, 4]
    assert len(matrices) == len(params), f"{len(params)} views in the shards, {len(matrices)} in the file"
    u, _, vt = np.linalg.svd(matrices[:, :3, :3])
    off = float(np.abs(u @ vt - matrices[:, :3, :3]).max())
    matrices[:, :3, :3] = u @ vt
    first, second = np.nonzero(~np.eye(len(params), dtype=bool))
    pairs = np.stack([params[first], params[second]], axis=1)  # [pairs, 2, P]
    actions = actions_between(pairs, split.param_names, split.actions)[:, 0]  # quaternion x y z w, then x y z
    by_hand = np.linalg.inv(matrices[first]) @ matrices[second]
    rotations = Rotation.from_quat(actions[:, :4]).as_matrix() - by_hand[:, :3, :3]
    translations = actions[:, 4:] - by_hand[:, :3, 3]
    return len(first), off, float(np.abs(rotations).max()), float(np.abs(translations).max())


if __name__ == "__main__":
    pairs, off, rotation, translation = differences(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(
        f"{pairs} pairs, matrices off by {off:.1e}: rotation {rotation:.1e}, translation {translation:.1e}\n"
    )
