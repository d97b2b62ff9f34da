"""Methods compared on somebody's own views: windows, declared actions, their own columns in the table."""

from __future__ import annotations

import json

import pytest
from noise_shards import noise_shards
from ordered_sets import write_walks
from small_backbone import small
from typer.testing import CliRunner

from cli import seqjepa_app
from seqjepa.experiments.compare import Comparison, compare
from seqjepa.experiments.compare_table import comparison_table
from shards.errors import ConfigError
from shards.schema import ActionSpec

SCALE = f"""
[settings.model]
backbone = "{small.__name__}"
width = 0.0625
layers = 1
predictor_hidden = 16
[method.simclr.settings.model]
projector = [16, 16]
[compare]
views_per_step = 48
[compare.evaluation]
m_val = [1, 2]
probe_epochs = 1
agg_draws = 1
"""


@pytest.fixture
def scale(tmp_path):
    (tmp_path / "tiny.toml").write_text(SCALE)
    return str(tmp_path / "tiny.toml")


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    lengths = (14, 9, 11, 23)
    return write_walks(tmp_path_factory.mktemp("walks") / "set", {"train": (*lengths, *lengths), "val": lengths}).path


def test_methods_are_compared_on_windows_of_own_actions(walks, scale, tmp_path):
    said = []
    comparison = Comparison(walks, ("seq_jepa", "context_ssl", "simclr"), steps=3, scale=scale)
    found = compare(comparison, tmp_path / "out", device="cpu", workers=0, progress=False, say=said.append)
    assert said[0].startswith("context_ssl is left out: it needs views with rot_x, rot_y, rot_z")
    assert [row["method"] for row in found["rows"]] == ["seq_jepa", "simclr"]
    for row in [*found["rows"], found["untrained"]]:
        assert isinstance(row["r2_rel"], float)
    results = json.loads((tmp_path / "out" / "seq_jepa-seed0" / "results.json").read_text())["trained"]
    assert found["rows"][0]["r2_rel"] == results["r2_rel_term1_avg"]
    assert found["rows"][0]["r2_indiv"] == results["r2_indiv_term1_avg"]
    assert results["protocol"]["order"] == "window"
    table = comparison_table(found)
    assert "R² rel: torque [N m]" in table
    page = CliRunner().invoke(seqjepa_app, ["report", str(tmp_path / "out"), "--markdown", str(tmp_path / "r.md")])
    assert page.exit_code == 0, page.output
    assert "R² torque" in (tmp_path / "r.md").read_text()


def test_without_actions_only_methods_that_need_none_are_compared(tmp_path, scale):
    bare = write_walks(tmp_path / "set", {"train": (14, 9, 11, 23), "val": (9,)}, actions=None)
    comparison = Comparison(bare.path, ("seq_jepa", "sie", "byol"), scale=scale)
    assert comparison.left_out.keys() == {"seq_jepa", "sie"}
    assert list(comparison.jobs()) == ["byol"]
    with pytest.raises(ConfigError, match="sie needs actions, and the set declares none"):
        Comparison(bare.path, ("sie",), scale=scale).jobs()


@pytest.mark.parametrize("declared", ["angle_difference", "relative_rotation", None])
def test_what_a_set_declares_is_the_action_though_it_has_rotations_too(declared, scale, tmp_path):
    columns = ["rot_x", "rot_y", "rot_z"] if declared == "relative_rotation" else ["light_theta"]
    actions = ActionSpec.from_json([{"op": declared, "columns": columns}]) if declared else None
    shards = noise_shards(tmp_path / "set", actions=actions)
    (jobs,) = Comparison(shards, ("sie",), steps=3, scale=scale).jobs().values()
    assert ("data.action=shards" in jobs[0].settings) == (declared == "angle_difference")
