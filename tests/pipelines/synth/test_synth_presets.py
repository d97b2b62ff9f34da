"""The preset `hard`: its kinds, how far its objects vary, its stages; and `plain`, which it must leave as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import NearestCentroid
from typer.testing import CliRunner

from pipelines.commands.synth import synth_app
from pipelines.synth import SynthConfig, iter_objects, synth_shards, synth_tree
from pipelines.synth import config as configuration
from pipelines.synth import render as rendering
from pipelines.synth.dice import Dice, Stream, stream
from pipelines.synth.families import HARD_FAMILIES, NEAR_SYMMETRIC
from pipelines.synth.objects import object_solid, plan_objects
from pipelines.synth.parts import box, ellipsoid, strut, surface_points
from pipelines.synth.presets import DETAIL, PRESETS, WideDice, varied
from pipelines.synth.render import render_views
from pipelines.synth.scene import OBJECT_RADIUS
from pipelines.synth.stage import DRAWS
from shards.errors import UsageError
from shards.reader import ShardSet

KINDS = len(HARD_FAMILIES)
HARD = SynthConfig(objects=20, views=3, size=24, seed=9, families=10, preset="hard")


def test_there_are_55_kinds_and_every_fifth_is_near_symmetric():
    names = PRESETS["hard"].class_names(KINDS)
    assert KINDS == 55
    assert len(set(names)) == KINDS
    assert set(PRESETS["plain"].class_names(32)) < set(names)
    for some in range(5, KINDS + 1, 5):
        assert sum(family in NEAR_SYMMETRIC for family in HARD_FAMILIES[:some]) == some // 5


def test_a_version_never_changes():
    """Golden: what version 1 drew when its first sets were made. Where this fails, the preset has another version."""
    solid = object_solid(7, 12, KINDS, "hard")
    assert PRESETS["hard"].version == 1
    assert [len(solid), *solid.half.sum(0), *solid.colour.sum(0)] == pytest.approx(GOLDEN_HARD, abs=1e-6)
    made = next(iter_objects(SynthConfig(objects=55, views=2, size=32, seed=7, preset="hard")))
    assert made.images.mean((0, 1, 2)) == pytest.approx(GOLDEN_HARD_PIXELS, abs=0.1)


def test_plain_is_what_it_was():
    """Golden: sets from before there were presets. Their folders must stay resumable too."""
    solid = object_solid(7, 12, 32)
    assert [len(solid), *solid.half.sum(0), *solid.colour.sum(0)] == pytest.approx(GOLDEN_PLAIN, abs=1e-6)
    made = next(iter_objects(SynthConfig(objects=32, views=2, size=32, seed=7)))
    assert made.images.mean((0, 1, 2)) == pytest.approx(GOLDEN_PLAIN_PIXELS, abs=0.1)
    assert set(SynthConfig().identity()) == {
        *("objects", "views", "size", "seed", "ood", "families", "val_fraction", "device", "renderer"),
    }


def test_every_object_fits_its_sphere_and_is_made_of_solids():
    for index in range(2 * KINDS):
        solid = object_solid(0, index, KINDS, "hard")
        assert (solid.half > 0).all()
        assert np.abs(solid.at).max() < OBJECT_RADIUS
        assert ((solid.colour >= 0) & (solid.colour <= 1)).all()
        assert np.allclose(solid.turn.swapaxes(1, 2) @ solid.turn, np.eye(3), atol=1e-9)
        assert np.allclose(np.linalg.det(solid.turn), 1)


def _outlines(index: int, turns: np.ndarray) -> np.ndarray:
    """Pictures of the solid alone, the same light on all sides, so that only shape and paint are seen."""
    latents = np.zeros((len(turns), 7))
    latents[:, :3] = turns
    draws = np.zeros((len(turns), DRAWS))
    draws[:, 1] = 0.999  # ambient
    draws[:, 5] = 0.999  # clear
    draws[:, 18::10] = 0.999  # no clutter
    return render_views(object_solid(0, index, KINDS, "hard"), latents, 32, stages=draws).astype(int)


def test_near_symmetric_kinds_hide_a_turn_about_their_axis_and_the_others_do_not():
    """Share of pixels that change with turns about z: little, but for its mark not nothing."""
    turns = np.zeros((4, 3))
    turns[:, 2] = [0.2, 0.9, 1.6, -0.8]
    changed = {True: [], False: []}
    for index in range(KINDS):
        images = _outlines(index, turns)
        share = (np.abs(images[1:] - images[0]).max(-1) > 8).mean((1, 2)).mean()
        changed[HARD_FAMILIES[index % KINDS] in NEAR_SYMMETRIC].append(share)
    found = [(max(share), float(np.median(share))) for share in (changed[True], changed[False])]
    assert found[0][0] < 0.2, found
    assert 0 < found[0][1] < found[1][1] / 3, found


def test_paint_tells_little_of_the_kind():
    """Nearest centroid of an object's mean paint and its spread: far more for plain than for hard."""

    def right(preset: str, kinds: int) -> float:
        solids = [object_solid(0, index, kinds, preset) for index in range(kinds * 6)]
        paints = np.array([np.concatenate([s.colour.mean(0), s.behind.mean(0), s.colour.std(0)]) for s in solids])
        label, learned = np.arange(len(solids)) % kinds, np.arange(len(solids)) < kinds * 4
        return NearestCentroid().fit(paints[learned], label[learned]).score(paints[~learned], label[~learned])

    plain, hard = right("plain", 32) * 32, right("hard", KINDS) * KINDS
    assert plain > 1.5 * hard, (plain, hard)  # in units of chance


def test_mean_colours_tell_little_of_the_rotation():
    """The thick coat of plain does: R² of linear regression from a picture's nine mean colours to the object's axes."""

    def r2(preset: str) -> float:
        made = list(iter_objects(SynthConfig(objects=60, views=6, size=16, preset=preset)))
        images = np.concatenate([item.images for item in made]).astype(float)
        axes = Rotation.from_euler("xyz", np.concatenate([item.latents[:, :3] for item in made])).as_matrix()
        colours = np.concatenate([images.mean((1, 2)), images.std((1, 2)), images[:, 4:12, 4:12].mean((1, 2))], axis=1)
        half = len(colours) // 2
        model = LinearRegression().fit(colours[:half], axes[:half, 2])
        return model.score(colours[half:], axes[half:, 2])

    assert r2("plain") > 0.15
    assert r2("hard") < 0.08


def test_wide_dice_widen_lengths_and_leave_angles_and_choices():
    dice = WideDice(stream(0, 0, Stream.SHAPE))
    drawn = [dice(0.5, 1.0) for _ in range(500)]
    assert min(drawn) < 0.48
    assert max(drawn) > 1.04
    assert {dice.pick("a", "b", "c") for _ in range(100)} == {"a", "b", "c"}
    turns = [dice(-30, 30) for _ in range(500)]
    assert -30 <= min(turns) < -28
    assert 28 < max(turns) < 30


def test_a_stretch_takes_parts_where_it_takes_their_points(monkeypatch: pytest.MonkeyPatch):
    """A box along the axes and the ends of a strut: exactly; the factors are read off the box."""
    parts = [box((0, 0, 0), (1, 1, 1), (1, 0, 0)), strut((0.2, -0.4, 0.1), (0.9, 0.6, 1.3), 0.05, (0, 1, 0))]
    still, slanted = varied(parts, Dice(stream(0, 4, Stream.VARIATION)), near_symmetric=False)
    by = 2 * still.half
    assert np.ptp(by) > 0.05
    axis = slanted.turn[:, 2] * slanted.half[2]
    assert np.allclose(np.array(slanted.at) - axis, by * (0.2, -0.4, 0.1))
    assert np.allclose(np.array(slanted.at) + axis, by * (0.9, 0.6, 1.3))


def test_details_go_and_large_parts_and_marks_stay():
    body, detail = box((0, 0, 0), (1, 1, 1), (1, 0, 0)), ellipsoid((0.5, 0, 0), (0.1, 0.1, 0.1), (0, 1, 0))
    assert detail.half.max() < DETAIL * 0.8
    dice = [Dice(stream(0, index, Stream.VARIATION)) for index in range(200)]
    left = [len(varied([body, detail, detail], r, near_symmetric=False)) for r in dice]
    assert {1, 2, 3} == set(left)
    assert {len(varied([body, detail, detail], r, near_symmetric=True)) for r in dice} == {3}


def test_near_symmetric_objects_stay_round():
    ball = [ellipsoid((0, 0, 0), (1, 1, 1), (1, 0, 0))]
    for index in range(20):
        (part,) = varied(ball, Dice(stream(0, index, Stream.VARIATION)), near_symmetric=True)
        extent = np.ptp(surface_points(part), axis=0)
        assert extent[0] == pytest.approx(extent[1], rel=1e-2)


def test_objects_depend_on_seed_index_and_preset_alone():
    some, more = list(iter_objects(HARD)), list(iter_objects(replace(HARD, objects=30, views=5)))
    for a, b in zip(some, more, strict=False):
        assert (a.synset, a.object_id, a.split) == (b.synset, b.object_id, b.split)
        assert np.array_equal(a.images, b.images[:3])
        assert np.array_equal(a.latents, b.latents[:3])
    plain = next(iter_objects(replace(HARD, preset="plain")))
    assert np.array_equal(plain.latents, some[0].latents)  # the seven latents are the same
    assert not np.array_equal(plain.images, some[0].images)


def test_views_do_not_depend_on_their_companions_or_on_chunks(monkeypatch: pytest.MonkeyPatch):
    made = next(iter_objects(HARD))
    monkeypatch.setattr(rendering, "_CHUNK_PIXELS", 2 * 24 * 24)
    assert np.array_equal(next(iter_objects(HARD)).images, made.images)


def test_out_of_distribution_sets_have_the_same_objects_on_other_stages():
    seen, ood = list(iter_objects(HARD)), list(iter_objects(replace(HARD, ood=True)))
    assert [item.object_id for item in ood] == [item.object_id for item in plan_objects(HARD) if item.split == "val"]
    by_id = {item.object_id: item for item in seen}
    assert all(not np.array_equal(item.images, by_id[item.object_id].images) for item in ood)


def test_shards_and_tree_hold_the_same_and_say_the_preset(tmp_path: Path):
    info = synth_shards(HARD, tmp_path / "shards")
    synth_tree(HARD, tmp_path / "tree")
    assert info.name == "3die-synth-hard"
    assert info.classes == PRESETS["hard"].class_names(10)
    described = json.loads((tmp_path / "shards/_meta/dataset.json").read_text())["provenance"]
    assert (described["source"]["preset"], described["source"]["preset_version"]) == ("hard", 1)
    assert "--preset hard" in described["command"]
    assert "version" not in described["command"]
    config = json.loads((tmp_path / "tree/synth.json").read_text())["config"]
    assert (config["preset"], config["preset_version"]) == ("hard", 1)
    train = ShardSet.open(tmp_path / "shards").split("train")
    labels = np.load(tmp_path / "tree/train_labels.npy", allow_pickle=False)
    assert sorted(train.labels.tolist()) == sorted(labels.tolist())
    first = next(iter_objects(HARD))
    at = train.keys.index(next(key for key in train.keys if first.object_id in key))
    assert np.array_equal(train.params[at], first.latents.astype(np.float32))
    assert np.abs(train.read_view(at, 0).astype(int) - first.images[0]).mean() < 8  # JPEG at 24 pixels


def test_another_preset_or_version_does_not_go_on_in_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synth_tree(HARD, tmp_path / "tree")
    synth_shards(HARD, tmp_path / "shards")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for cfg in (replace(HARD, preset="plain"), HARD):
        if cfg == HARD:
            newer = {**PRESETS, "hard": replace(PRESETS["hard"], version=2)}
            monkeypatch.setattr(configuration, "PRESETS", newer)
        for write, out in ((synth_tree, "tree"), (synth_shards, "shards")):
            with pytest.raises(UsageError, match="preset") as caught:
                write(cfg, tmp_path / out)
            assert "\n" not in str(caught.value)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"preset": "heavy"}, "preset='heavy' is not known; use plain or hard"),
        ({"families": 56}, "families=56 is out of range; allowed are 1 to 55"),
        ({"families": None, "objects": 54}, "fewer than the 55 families"),
        ({"preset": "plain", "families": 33}, "allowed are 1 to 32"),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(wrong: dict, said: str, tmp_path: Path):
    for write in (synth_tree, synth_shards):
        with pytest.raises(UsageError, match=said) as caught:
            write(replace(HARD, **wrong), tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command_takes_a_preset(tmp_path: Path):
    words = ["3die", "--preset", "hard", "--objects", "16", "--views", "2", "--size", "16", "--families", "8"]
    done = CliRunner().invoke(synth_app, [*words, "--out", str(tmp_path / "tree")])
    assert done.exit_code == 0
    classes = json.loads((tmp_path / "tree/synth.json").read_text())["classes"]
    assert list(classes.values()) == [family.__name__ for family in HARD_FAMILIES[:8]]


GOLDEN_HARD = [10, 0.68477655, 1.11460293, 2.21877022, 6.89266584, 7.87892127, 6.07902824]
GOLDEN_HARD_PIXELS = [54.703, 110.604, 55.192]
GOLDEN_PLAIN = [7, 1.19973195, 1.50652601, 0.8043072, 4.37870723, 4.01818289, 3.56176659]
GOLDEN_PLAIN_PIXELS = [43.793, 100.854, 46.756]
