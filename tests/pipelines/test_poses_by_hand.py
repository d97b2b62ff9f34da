"""examples/poses_by_hand.py on a capture that is made here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from small_capture import cameras, write_nerf
from test_layouts import shards_of

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "poses_by_hand.py"


def test_actions_between_any_two_views_are_matrices_multiplied(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("poses_by_hand", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    write_nerf(tmp_path / "scene", cameras(12))
    (tmp_path / "scene/images/003.png").unlink()
    shards_of(tmp_path / "scene", tmp_path / "out", max_bad=1)
    pairs, off, rotation, translation = example.differences(tmp_path / "out", tmp_path / "scene/transforms.json")
    assert pairs == 11 * 10
    assert max(off, rotation, translation) < 1e-6
