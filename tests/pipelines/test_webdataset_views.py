"""Anybody's webdataset tars → view shards: images, parameters and steps as webdataset and NumPy read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_tars import write_tar
from small_3die import make_tree, shard_3diebench
from small_images import encoded, picture

from pipelines.build.webdataset import shard_webdataset
from pipelines.sources.webdataset.options import TarOptions
from pipelines.sources.webdataset.sequences import SequenceOptions
from pipelines.sources.webdataset.table import Meaning
from shards.errors import FormatError, UsageError
from shards.reader import ShardSet
from shards.reading.split_index import SplitIndex
from shards.schema import ActionSpec, ActionTerm, ParamField, ViewSpec

webdataset = pytest.importorskip("webdataset")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset does not close its tars

OF_TARS = ("split", "label", "classes", "image", "val_fraction")
OF_SEQUENCES = ("sequence", "key", "step", "columns", "ordered")

OF_MEANING = ("actions", "action", "units", "allow_repeats")


def shard(out: Path, *sources: str | Path, **options: Any) -> ShardSet:
    asked = {name: options.pop(name) for name in OF_TARS if name in options}
    how = {name: options.pop(name) for name in OF_SEQUENCES if name in options}
    shard_webdataset(
        TarOptions(tuple(map(str, sources)), **asked),
        SequenceOptions.parse(**how),
        out,
        meaning=Meaning(**{name: options.pop(name) for name in OF_MEANING if name in options}),
        **{"workers": 0, "encoding": "raw", "size": None, **options},
    )
    return ShardSet.open(out)


def spec_of(shards: ShardSet) -> ViewSpec:
    assert isinstance(shards.info.spec, ViewSpec)
    return shards.info.spec


def objects(index: SplitIndex) -> dict[str, list[tuple[int, np.ndarray, np.ndarray]]]:
    """By key: (number, image, parameters) of each view."""
    found = {}
    for row, key in enumerate(index.keys):
        views = range(int(index.n_views[row]))
        found[key] = [(int(index.view_ids[row, v]), index.read_view(row, v), index.params[row, v]) for v in views]
    return found


def turntables(count: int = 4) -> list[dict[str, Any]]:
    """Objects of 3, 4, 3 … images, their angle in the JSON for each, their pose in an array, their height for all."""
    samples = []
    for i in range(count):
        views = 3 + i % 2
        samples.append(
            {
                "__key__": f"object{i}",
                **{f"{k:02d}.png": encoded(picture(10 * i + k)) for k in range(views)},
                "cls": i % 2,
                "json": {"angle": [0.5 * k for k in range(views)], "height": i, "maker": "x", "works": True},
                "pose.npy": np.arange(views * 4, dtype=np.float64).reshape(views, 2, 2),
            }
        )
    return samples


def test_samples_of_several_images(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", turntables())
    found = shard(tmp_path / "out", tar)
    assert spec_of(found).param_names == ("angle", "height", "pose.0", "pose.1", "pose.2", "pose.3")
    assert not spec_of(found).ordered
    there = objects(found.split("train"))
    for row in webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False).decode("rgb8"):
        views = there[row["__key__"]]
        assert [number for number, _, _ in views] == list(range(len(row["json"]["angle"])))
        for number, image, params in views:
            np.testing.assert_array_equal(image, row[f"{number:02d}.png"])
            expected = [row["json"]["angle"][number], row["json"]["height"], *row["pose.npy"][number].ravel()]
            np.testing.assert_array_equal(params, np.array(expected, np.float32))
    assert found.split("train").labels.tolist() == [0, 1, 0, 1]


def test_numbers_as_labels_keep_their_order(tmp_path: Path) -> None:
    samples = turntables(12)
    for number, sample in enumerate(samples):
        sample["cls"] = number
    found = shard(tmp_path / "out", write_tar(tmp_path / "t.tar", samples), columns="height")
    assert found.info.classes == tuple(map(str, range(12)))
    heights = [int(views[0][2][0]) for views in objects(found.split("train")).values()]
    assert found.split("train").labels.tolist() == heights


def test_json_and_arrays_of_each_image(tmp_path: Path) -> None:
    sample = {"__key__": "a", "json": {"all": 7}}
    for k in (4, 2):
        sample |= {
            f"{k}.png": encoded(picture(k)),
            f"{k}.json": {"x": k, "v": [1, k]},
            f"{k}.q.npy": np.array([k, 0], np.float32),
        }
    found = shard(tmp_path / "out", write_tar(tmp_path / "t.tar", [sample]))
    (views,) = objects(found.split("train")).values()
    assert spec_of(found).param_names == ("all", "x", "v.0", "v.1", "q.0", "q.1")
    assert [(number, params.tolist()) for number, _, params in views] == [
        (2, [7, 2, 1, 2, 2, 0]),
        (4, [7, 4, 1, 4, 4, 0]),
    ]


def walks(count: int = 12, scenes: int = 3, first: int = 0) -> list[dict[str, Any]]:
    """One image a sample; scenes take turns, so that their steps, counted over all, lie `scenes` apart."""
    return [
        {
            "__key__": f"{number:04d}",
            "png": encoded(picture(number)),
            "json": {"scene": f"scene{number % scenes}", "frame": number, "x": number / 4, "xy": [[1, 2], [3, number]]},
            "txt": "a walk",
        }
        for number in range(first, first + count)
    ]


def test_sequences_over_several_tars(tmp_path: Path) -> None:
    samples = walks()
    order = np.random.default_rng(0).permutation(len(samples))
    for tar in range(3):
        write_tar(tmp_path / f"w-{tar}.tar", [samples[i] for i in order[4 * tar : 4 * tar + 4]])
    found = shard(tmp_path / "out", tmp_path / "w-{0..2}.tar", sequence="scene", step="frame")
    assert spec_of(found).ordered
    assert spec_of(found).param_names == ("x", "xy.0", "xy.1", "xy.2", "xy.3")
    there = objects(found.split("train"))
    assert sorted(there) == ["scene0", "scene1", "scene2"]
    for scene in range(3):
        views = there[f"scene{scene}"]
        assert [number for number, _, _ in views] == [0, 1, 2, 3]  # frames 0, 3, 6, 9: no gaps
        for number, image, params in views:
            frame = 3 * number + scene
            np.testing.assert_array_equal(image, picture(frame))
            np.testing.assert_array_equal(params, np.array([frame / 4, 1, 2, 3, frame], np.float32))


def test_long_sequences_take_several_samples(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", walks(30, scenes=2))
    found = shard(tmp_path / "out", tar, sequence="scene", step="frame", columns="x", views_per_sample=4)
    index = found.split("train")
    assert spec_of(found).chunked
    assert index.chunk.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    again = shard(tmp_path / "again", tmp_path / "out", views_per_sample=4)
    assert spec_of(again) == spec_of(found)
    assert objects(again.split("train")).keys() == objects(index).keys()
    for key, views in objects(again.split("train")).items():
        for (number, image, params), (other, pixels, row) in zip(views, objects(index)[key], strict=True):
            assert number == other
            np.testing.assert_array_equal(image, pixels)
            np.testing.assert_array_equal(params, row)


def test_steps_in_nanoseconds(tmp_path: Path) -> None:
    """As of manifests. Times in seconds are no steps, and what to do is said."""
    samples = walks(8, 1)
    for number, sample in enumerate(samples):
        sample["json"]["frame"] = 1_600_000_000_000_000_000 + 50_000_000 * number
    tar = write_tar(tmp_path / "t.tar", samples)
    found = shard(tmp_path / "out", tar, sequence="scene", step="frame", columns="x").split("train")
    assert found.view_ids[0].tolist() == [*range(8)]
    samples[1]["json"]["frame"] += 1
    samples[7]["json"]["frame"] += 2**40
    with pytest.raises(FormatError, match=r"1 mistake: .* sample 0007: its step is too far"):
        shard(tmp_path / "far", write_tar(tmp_path / "far.tar", samples), sequence="scene", step="frame")
    samples[2]["json"]["frame"] = 0.5
    with pytest.raises(FormatError, match=r"step is 0\.5; whole numbers from 0 are steps; without --step, --ordered"):
        shard(tmp_path / "far", write_tar(tmp_path / "odd.tar", samples), sequence="scene", step="frame")


def test_sequence_and_step_from_the_key(tmp_path: Path) -> None:
    samples = [
        {"__key__": f"{s}_{k:03d}", "png": encoded(picture(k)), "json": {"x": k}} for s in "ab" for k in (2, 0, 1)
    ]
    tar = write_tar(tmp_path / "t.tar", samples)
    found = shard(tmp_path / "out", tar, key="(?P<sequence>.+)_(?P<step>[0-9]+)")
    assert spec_of(found).ordered
    assert [view[2].tolist() for view in objects(found.split("train"))["b"]] == [[0], [1], [2]]
    loose = shard(tmp_path / "loose", tar, key="(.+)_.*")
    assert not spec_of(loose).ordered
    assert [view[2].tolist() for view in objects(loose.split("train"))["b"]] == [[2], [0], [1]]
    with pytest.raises(FormatError, match=r"6 mistakes: .*sample a_002: its key does not match"):
        shard(tmp_path / "none", tar, key="(c)_.*")


def test_validation_is_a_share_of_the_sequences(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", walks(40, scenes=10))
    found = shard(tmp_path / "out", tar, sequence="scene", step="frame", val_fraction=0.2)
    keys = {split: set(found.split(split).keys) for split in ("train", "val")}
    assert [len(keys["train"]), len(keys["val"])] == [8, 2]
    assert not keys["train"] & keys["val"]


def test_mistakes_are_named_all_at_once(tmp_path: Path) -> None:
    samples = walks(10, scenes=1)
    samples[1]["json"]["x"] = float("nan")
    del samples[2]["json"]["x"]
    samples[3]["json"]["scene"] = None
    samples[4]["json"]["frame"] = 0.5
    samples[5]["json"]["frame"] = 0
    samples[6]["json"]["xy"] = [1, 2]
    samples[7]["json"] = b"{broken"
    samples[8]["json"] = {**samples[8]["json"], "extra": 1}
    samples[9]["json"]["x"] = float("inf")
    write_tar(tmp_path / "a.tar", samples)
    write_tar(tmp_path / "b.tar", walks(1, scenes=1, first=10))
    with pytest.raises(FormatError) as raised:
        shard(tmp_path / "out", tmp_path / "a.tar", f"val={tmp_path}/b.tar", sequence="scene", step="frame")
    text = str(raised.value)
    assert "10 mistakes" in text
    for line in (
        "a.tar, sample 0001: no number x, which the first sample has",
        "a.tar, sample 0002: no number x, which the first sample has",
        "a.tar, sample 0003: its sequence is None",
        "a.tar, sample 0004: step is 0.5; whole numbers from 0",
        "a.tar, sample 0005: its sequence scene0 has step 0 already",
        "a.tar, sample 0006: xy has 2 numbers, in the first sample 4",
        "a.tar, sample 0007: ",
        "a.tar, sample 0008: a number extra, which the first sample has not",
        "a.tar, sample 0009: x is infinite",
        "b.tar, sample 0010: its sequence scene0 lies in train and val",
    ):
        assert line in text
    assert not (tmp_path / "out").exists()


def test_columns_that_are_chosen(tmp_path: Path) -> None:
    samples = walks(4, scenes=1)
    samples[2]["json"]["noise"] = 3
    tar = write_tar(tmp_path / "t.tar", samples)
    found = shard(tmp_path / "out", tar, sequence="scene", step="frame", columns="xy,x")
    assert spec_of(found).param_names == ("xy.0", "xy.1", "xy.2", "xy.3", "x")
    with pytest.raises(FormatError, match=r"mistakes?: .*no numbers called yaw"):
        shard(tmp_path / "none", tar, sequence="scene", step="frame", columns="yaw")


ACTIONS = """
[units]
turn = "deg"
xy = "m"
[[action]]
op = "difference"
columns = ["xy"]
[[action]]
op = "angle_difference"
columns = ["turn"]
"""
MEANT = ActionSpec(
    (
        ActionTerm("difference", ("xy.0", "xy.1", "xy.2", "xy.3")),
        ActionTerm("angle_difference", ("turn",)),
    )
)


def test_fields_that_hold_no_numbers_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers within quotes, say; not what --columns does not name."""
    fields = {"seq": "a", "x": 0.5, "y": "1.5", "seen": True, "note": "?", "who": None}
    samples = [{"__key__": f"{i}", "png": encoded(picture(i)), "json": {**fields, "x": 1e9 + i}} for i in (0, 1)]
    tar = write_tar(tmp_path / "s.tar", samples)
    assert spec_of(shard(tmp_path / "all", tar, sequence="seq")).param_names == ("x",)
    assert "fields that hold no numbers are left out: y, seen, note and 1 more" in caplog.text
    assert "x is stored in float32, where 1000000001 is off by 1, and changes by 1 from row to row" in caplog.text
    caplog.clear()
    shard(tmp_path / "chosen", tar, sequence="seq", columns="x")
    assert "no numbers" not in caplog.text


def test_angles_that_look_like_degrees_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As of manifests; of a set of ours nothing is asked again."""
    samples = [{"__key__": f"{i}", "png": encoded(picture(i)), "json": {"seq": "a", "yaw": 90 * i}} for i in range(4)]
    shard(tmp_path / "out", write_tar(tmp_path / "s.tar", samples), sequence="seq")
    assert "yaw goes from 0 to 270 without a unit: an angle in degrees?" in caplog.text
    caplog.clear()
    shard(tmp_path / "again", tmp_path / "out/train-000000.tar")
    assert "without a unit" not in caplog.text


def test_units_and_action(tmp_path: Path) -> None:
    """As manifests have them, from actions.toml beside the tars or anywhere; degrees become radians."""
    samples = walks(6, scenes=1)
    for number, sample in enumerate(samples):
        sample["json"]["turn"] = 30 * number
    tar = write_tar(tmp_path / "in/t.tar", samples)
    options = {"sequence": "scene", "step": "frame", "columns": "turn,xy"}
    (tmp_path / "actions.toml").write_text(ACTIONS)
    given = shard(tmp_path / "given", tar, actions=tmp_path / "actions.toml", **options)
    assert spec_of(given).actions == MEANT
    assert spec_of(given).params[:2] == (ParamField("turn", "rad"), ParamField("xy.0", "m"))
    turns = np.array([30 * number * np.pi / 180 for number in range(6)], np.float32)
    np.testing.assert_array_equal([row[2][0] for row in objects(given.split("train"))["scene0"]], turns)
    (tmp_path / "in/actions.toml").write_text(ACTIONS)
    assert spec_of(shard(tmp_path / "beside", tar, **options)) == spec_of(given)
    again = shard(tmp_path / "again", tmp_path / "given", sequence="sequence")
    assert spec_of(again) == spec_of(given)
    with pytest.raises(UsageError, match="a set of ours says its units itself"):
        shard(tmp_path / "units", tmp_path / "given", sequence="sequence", units=("turn=deg",))


def test_action_that_the_columns_do_not_suffice_for(tmp_path: Path) -> None:
    samples = walks(6, scenes=1)
    for sample in samples:
        sample["json"]["pose"] = np.eye(4).tolist()
    samples[4]["json"]["pose"][0][0] = 3
    tar = write_tar(tmp_path / "t.tar", samples)
    options = {"sequence": "scene", "columns": "pose,x"}
    with pytest.raises(FormatError, match=r"1 mistake: .*sample 0004: pose\.0 … pose\.15 is no rotation"):
        shard(tmp_path / "out", tar, step="frame", action="pose", **options)
    with pytest.raises(FormatError, match=r"needs action; the columns of numbers are pose\.0"):
        shard(tmp_path / "out", tar, step="frame", action="command", **options)
    (tmp_path / "actions.toml").write_text('[[action]]\nop = "command"\ncolumns = ["x"]\n[units]\nyaw = "deg"\n')
    with pytest.raises(FormatError, match="2 mistakes: ") as raised:
        shard(tmp_path / "out", tar, **options)
    assert "a unit for yaw, which is no column of numbers" in str(raised.value)
    assert "a command leads from a frame to the next: order them with --step" in str(raised.value)


def test_the_last_frame_has_no_command(tmp_path: Path) -> None:
    samples = walks(8, scenes=2)
    for number, sample in enumerate(samples):
        sample["json"]["action"] = [number, 1]
    samples[7]["json"]["action"] = None
    del samples[6]["json"]["action"]
    options = {"sequence": "scene", "step": "frame", "columns": "action,x"}
    found = shard(tmp_path / "out", write_tar(tmp_path / "t.tar", samples), action="command", **options)
    for scene in (0, 1):
        rows = [row[2].tolist() for row in objects(found.split("train"))[f"scene{scene}"]]
        assert rows == [[k, 1, k / 4] for k in (scene, 2 + scene, 4 + scene)] + [[0, 0, (6 + scene) / 4]]
    samples[2]["json"]["action"] = [None, 1]
    with pytest.raises(FormatError, match=r"1 mistake: .*sample 0002: no number action\.0, .*last frame"):
        shard(tmp_path / "no", write_tar(tmp_path / "t.tar", samples), action="command", **options)


def test_an_array_of_what_lies_between_images(tmp_path: Path) -> None:
    """One action less than images, as simulators record them: the last image has none."""
    samples = [{**turntables(1)[0], "action.npy": np.array([[1.0, 2], [3, 4]])}]
    tar = write_tar(tmp_path / "t.tar", samples)
    found = shard(tmp_path / "out", tar, columns="action", action="command", ordered=True)
    assert [row[2].tolist() for row in objects(found.split("train"))["object0"]] == [[1, 2], [3, 4], [0, 0]]
    with pytest.raises(
        FormatError, match=r"no number action\.0, .*; only a command of the last frame of a sequence may"
    ):
        shard(tmp_path / "no", tar, columns="action", ordered=True)


def test_keys_end_at_the_first_dot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As webdataset has it: names with dots in them are told so, and frames that times name are not one object a second
    without a word."""
    names = [f"{second}.{part}" for second in (1305031102, 1305031103) for part in (175304, 211214)]
    shard(tmp_path / "out", write_tar(tmp_path / "t.tar", [{"__key__": n, "png": encoded(picture(0))} for n in names]))
    assert "keys end at the first dot; if 1305031102 is the seconds of a time" in caplog.text
    samples = [{"__key__": f"v1.5_{i}", "png": encoded(picture(i))} for i in range(2)]
    with pytest.raises(
        FormatError, match=r"sample v1: no image \(it has 5_0.png, .*; a key ends at the first dot, an image"
    ):
        shard(tmp_path / "no", write_tar(tmp_path / "v.tar", samples), ordered=True)


def test_a_number_in_json_and_in_an_array(tmp_path: Path) -> None:
    """Once the array's went before, without a word."""
    sample = turntables(1)[0]
    tar = write_tar(tmp_path / "t.tar", [{**sample, "angle.npy": np.zeros(3)}])
    with pytest.raises(FormatError, match="sample object0: angle is in its JSON and an array; take one of them out"):
        shard(tmp_path / "out", tar)


def test_single_images_need_to_know_their_sequence(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", walks(3))
    with pytest.raises(UsageError, match=r"sample 0000 is one image; say which samples make a sequence"):
        shard(tmp_path / "out", tar, columns="x")


def test_our_own_views_again(tmp_path: Path) -> None:
    """Pixels, parameters, their names and units, actions, labels and classes are the same."""
    tree = make_tree(tmp_path / "tree", synsets=("0001", "0002"), objects=3, views=4)
    shard_3diebench(tree, tmp_path / "first", val_match="o2", encoding="raw", size=16, workers=0)
    first = ShardSet.open(tmp_path / "first")
    sources = [f"{split}={tmp_path}/first/{split}-*.tar" for split in first.splits]
    again = shard(tmp_path / "again", *sources)
    assert again.info.classes == first.info.classes
    assert spec_of(again) == spec_of(first)
    for split in first.splits:
        one, other = first.split(split), again.split(split)
        assert one.labels.tolist() == other.labels.tolist()
        for (key, views), (_, same) in zip(objects(one).items(), objects(other).items(), strict=True):
            assert len(views) == len(same), key
            for (number, image, params), (same_number, same_image, same_params) in zip(views, same, strict=True):
                assert number == same_number
                np.testing.assert_array_equal(image, same_image)
                np.testing.assert_array_equal(params, same_params)


def test_a_command_gives_what_the_file_gives(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", turntables())
    plain, piped = shard(tmp_path / "plain", tar), shard(tmp_path / "piped", f"pipe:cat {tar}")
    for (key, views), (same_key, same) in zip(
        objects(plain.split("train")).items(), objects(piped.split("train")).items(), strict=True
    ):
        assert key == same_key
        for (_, image, _), (_, same_image, _) in zip(views, same, strict=True):
            np.testing.assert_array_equal(image, same_image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["piped", "plain", "t.tar"]
    assert str(tmp_path) not in (tmp_path / "piped/_meta/dataset.json").read_text()


def test_other_pixels_under_the_same_names_are_another_set(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", walks(4))
    shard(tmp_path / "out", tar, sequence="scene", step="frame")
    shard(tmp_path / "out", tar, sequence="scene", step="frame")
    samples = walks(4)
    samples[3]["png"] = encoded(picture(99))
    write_tar(tar, samples)
    with pytest.raises(UsageError, match="other bytes than then"):
        shard(tmp_path / "out", tar, sequence="scene", step="frame")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sequence": "a", "key": "(b)"}, "both say what a sequence is"),
        ({"step": "frame"}, "--step orders the samples of a sequence"),
        ({"key": "("}, "is no regular expression"),
        ({"key": "abc"}, "has no group"),
        ({"key": "(?P<step>a)", "step": "frame"}, "both order a sequence"),
    ],
)
def test_options_that_contradict(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        SequenceOptions.parse(**options)


def test_the_same_pixels_in_two_splits(tmp_path: Path) -> None:
    samples = walks(6, scenes=1, first=10)
    samples[2]["png"] = encoded(picture(3), compress_level=1)
    for sample in samples:
        sample["json"]["scene"] = "another"
    tars = [write_tar(tmp_path / "a.tar", walks(8, scenes=2)), f"val={write_tar(tmp_path / 'b.tar', samples)}"]
    options = {"sequence": "scene", "step": "frame"}
    with pytest.raises(
        FormatError, match=r"1 mistake: .*a\.tar, sample 0003 .*b\.tar, sample 0012 .*the same pixels in"
    ):
        shard(tmp_path / "out", *tars, **options)
    found = shard(tmp_path / "out", *tars, allow_repeats=True, **options)
    assert found.splits == ("train", "val")
    assert "--allow-repeats" in found.info.provenance["command"].split()


def test_damaged_views_and_other_sizes(tmp_path: Path) -> None:
    samples = walks(12)
    samples[5]["png"] = samples[5]["png"][:-30]
    samples[7]["png"] = encoded(picture(7, 20, 20))
    options = {"sequence": "scene", "step": "frame"}
    tar = write_tar(tmp_path / "t.tar", samples)
    with pytest.raises(FormatError, match=r"--max-bad allows 0: t: 0007\.png: 20×20 pixels, the others have 32×24"):
        shard(tmp_path / "out", tar, **options)
    with pytest.raises(FormatError, match=r"--max-bad allows 0: t: 0005\.png: corrupt image"):
        shard(tmp_path / "out", tar, size=16, **options)
    found = shard(tmp_path / "out", tar, size=16, max_bad=1, **options)
    assert found.split("train").n_views.tolist() == [4, 4, 3]
