"""From a tree or a tar to shards, held against PIL and against itself."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from python_path import python_path
from small_3die import jpeg, latent, make_tar, make_tree, npy, same_folders, shard_3diebench, smooth_image

from pipelines.sources.keys import sample_key
from shards.errors import FailureError, FormatError, UsageError
from shards.reader import ShardSet
from shards.verify import verify

OPTIONS = {"size": 16, "val_match": "o1", "samples_per_shard": 2, "workers": 1, "jpeg_quality": "444-95"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two synsets of three objects with four views; one object has gaps, another only one view."""
    root = make_tree(tmp_path / "Tiny Set")
    for file in ("0001/o0/image_1.jpg", "0001/o0/latent_1.npy"):
        (root / file).unlink()
    for k in (0, 1, 3):
        (root / f"0002/o2/image_{k}.jpg").unlink()
        (root / f"0002/o2/latent_{k}.npy").unlink()
    return root


def shard(source: Path, out: Path, **options):
    return shard_3diebench(source, out, **{**OPTIONS, **options})


def test_what_comes_out(tree: Path, tmp_path: Path) -> None:
    info = shard(tree, tmp_path / "out")
    assert {name: split.samples for name, split in info.splits.items()} == {"train": 4, "val": 2}
    assert (info.classes, info.spec.views, info.name) == (("0001", "0002"), 4, "Tiny Set")
    train = ShardSet.open(tmp_path / "out").split("train")
    assert train.keys == ["0001_o0", "0001_o2", "0002_o0", "0002_o2"]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert train.view_ids.tolist() == [[0, 2, 3, -1], [0, 1, 2, 3], [0, 1, 2, 3], [2, -1, -1, -1]]
    assert np.array_equal(train.params[0, 1], latent(10000 + 2).astype(np.float32))
    assert np.array_equal(train.params[3, 0], latent(200 + 2).astype(np.float32))
    original = Image.open(tree / "0001/o0/image_2.jpg").resize((16, 16), Image.Resampling.BILINEAR)
    difference = train.read_view(0, 1).astype(int) - np.asarray(original)
    assert np.abs(difference).mean() < 3
    assert verify(tmp_path / "out").ok


def test_raw_pixels_are_exactly_pils(tree: Path, tmp_path: Path) -> None:
    info = shard(tree, tmp_path / "out", encoding="raw", jpeg_quality="auto")
    train = ShardSet.open(tmp_path / "out").split("train")
    original = Image.open(tree / "0002/o2/image_2.jpg").resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(train.read_view(3, 0), np.asarray(original))
    assert "psnr_db" not in info.provenance


def test_provenance_says_what_was_measured(tree: Path, tmp_path: Path) -> None:
    info = shard(make_tar(tree, tmp_path / "t.tar.gz"), tmp_path / "out", size=32, jpeg_quality="auto")
    index = ShardSet.open(tmp_path / "out")
    decibels = []
    for split in index.info.splits:
        samples = index.split(split)
        for i in range(len(samples.keys)):
            for v, k in enumerate(samples.view_ids[i][: samples.n_views[i]]):
                synset, name = samples.keys[i].split("_")
                original = np.asarray(Image.open(tree / synset / name / f"image_{k}.jpg")).astype(float)
                mse = ((samples.read_view(i, v) - original) ** 2).mean()
                decibels.append(10 * np.log10(255**2 / mse))
    provenance = info.provenance
    assert provenance["psnr_db"] == pytest.approx(np.mean(decibels), abs=2e-3)
    assert provenance["psnr_db"] >= 41
    assert (provenance["views"], provenance["source"]["image_size"]) == (len(decibels), [32, 32])
    assert provenance["command"].startswith("seqjepa-data shard 3diebench --source t.tar.gz --val-match o1 --split all")
    assert str(tmp_path) not in str(provenance)


def test_workers_change_nothing_and_tar_equals_tree(tree: Path, tmp_path: Path) -> None:
    tar = make_tar(tree, tmp_path / "t.tar")
    shard(tar, tmp_path / "one", jpeg_quality="auto")
    shard(tar, tmp_path / "three", jpeg_quality="auto", workers=3)
    assert same_folders(tmp_path / "one", tmp_path / "three")
    shard(tree, tmp_path / "tree", jpeg_quality="auto")
    sets = [ShardSet.open(tmp_path / name) for name in ("one", "tree")]
    for split in ("train", "val"):
        a, b = (s.split(split) for s in sets)
        order = [a.keys.index(key) for key in b.keys]
        assert np.array_equal(a.params[order], b.params)
        for j, i in enumerate(order):
            for v in range(b.n_views[j]):
                assert np.array_equal(a.read_view(i, v), b.read_view(j, v))


def test_ood_and_single_splits(tree: Path, tmp_path: Path) -> None:
    ood = shard(tree, tmp_path / "ood", split="ood", val_match=None)
    assert {name: split.samples for name, split in ood.splits.items()} == {"ood": 6}
    val = shard(tree, tmp_path / "val", split="val")
    assert {name: split.samples for name, split in val.splits.items()} == {"val": 2}
    limited = shard(tree, tmp_path / "limit", limit=1)
    assert {name: split.samples for name, split in limited.splits.items()} == {"train": 1, "val": 1}


def test_bad_views_are_counted_and_named(tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree / "0002/o0/image_3.jpg").write_bytes(jpeg(smooth_image(0))[:-300])
    (tree / "0001/o2/latent_0.npy").write_bytes(npy(np.full(7, np.nan)))
    (tree / "0001/o1/latent_2.npy").unlink()
    (tree / "0002/o2/image_2.jpg").write_bytes(b"the only view")
    for source in (tree, make_tar(tree, tmp_path / "t.tar")):
        out = tmp_path / f"out-{source.name}"
        with pytest.raises(FormatError, match=r"o1/image_2.jpg: its latent is missing.*--max-bad"):
            shard(source, out)
        assert not out.exists()
        with pytest.raises(FormatError, match=r"4 bad so far, --max-bad allows 3"):
            shard(source, out, max_bad=3)
        info = shard(source, out, max_bad=4)
        assert info.provenance["bad_views"] == {
            "count": 4,
            "names": [
                "0001/o1/image_2.jpg: its latent is missing",
                "0001/o2/latent_0.npy: latent is not finite, or too large",
                "0002/o0/image_3.jpg: corrupt JPEG",
                "0002/o2/image_2.jpg: not a JPEG",
            ],
        }
        assert sorted(ShardSet.open(out).split("train").keys) == ["0001_o0", "0001_o2", "0002_o0"]
    assert "4 bad views were left out" in caplog.text


def test_latents_in_degrees_and_objects_without_views_are_said(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "0001/bare").mkdir()
    for path in tree.rglob("latent_*.npy"):
        np.save(path, np.array([10.0, 1, 1, 0.5, 1, 1, 0.5]))
    info = shard_3diebench(tree, tmp_path / "out", val_fraction=0.4, workers=0)
    assert "1 folders where objects lie hold no view: 0001/bare" in caplog.text
    assert "e.g. 0001/o0/latent_0.npy: rot_x is 10 rad: degrees?" in caplog.text
    assert info.provenance["odd_views"]["count"] == 6  # a line an object
    caplog.clear()
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(tree, "tree")
    shard_3diebench(tmp_path / "t.tar", tmp_path / "of-tar", val_fraction=0.4, workers=0)
    assert "1 folders where objects lie hold no view: 0001/bare" in caplog.text


def test_images_of_mixed_size(tree: Path, tmp_path: Path) -> None:
    (tree / "0001/o0/image_0.jpg").write_bytes(jpeg(smooth_image(0, 48)))
    with pytest.raises(FormatError, match=r"o0/image_0.jpg: 48×48 pixels, the others have 32×32"):
        shard(tree, tmp_path / "out")
    for number, path in enumerate(sorted(tree.glob("*/*/image_*.jpg"))):
        path.write_bytes(jpeg(smooth_image(0, 30 + number)))
    with pytest.raises(FormatError, match="mixed size"):
        shard(tree, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shard_of_bad_views_only(tree: Path, tmp_path: Path) -> None:
    for path in tree.glob("*/o1/image_*.jpg"):
        path.write_bytes(b"bad")
    with pytest.raises(FormatError, match="every image of val-000000 is bad"):
        shard(tree, tmp_path / "out", max_bad=100)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"val_match": None}, "--split-lists"),
        ({"val_match": "nobody"}, "no object has this name"),
        ({"val_match": None, "val_fraction": 2.0}, "between 0 and 1"),
        ({"split": "test"}, "all, train, val, ood"),
        ({"encoding": "png"}, "jpeg, raw"),
        ({"jpeg_quality": "90"}, "420-90"),
        ({"size": 0}, "--size 0"),
        ({"limit": 0}, "--limit 0"),
    ],
)
def test_bad_options_write_nothing(tree: Path, tmp_path: Path, options: dict, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        shard(tree, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_foreign_or_different_folder_is_refused_before_any_work(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not a shard set"):
        shard(tree, tmp_path / "mine", overwrite=True)
    shard(tree, tmp_path / "out")
    with pytest.raises(UsageError, match=r"size: 16 there, 32 here.*--overwrite"):
        shard(tree, tmp_path / "out", size=32)
    assert shard(tree, tmp_path / "out", size=32, overwrite=True).spec.height == 32


def test_a_finished_set_is_left_alone(tree: Path, tmp_path: Path) -> None:
    for source in (tree, make_tar(tree, tmp_path / "t.tar")):
        out = tmp_path / f"out-{source.name}"
        first = shard(source, out)
        times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        assert shard(source, out) == first
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_a_failing_source_leaves_a_resumable_folder(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure the finished shards stay, a tar is not listed again, and the end is the same."""
    from pipelines.build import views
    from pipelines.sources.three_diebench.tar import ObjectTar

    tar = make_tar(tree, tmp_path / "t.tar")
    shard(tar, tmp_path / "whole")
    calls = iter(range(100))

    def failing(record, job):
        if next(calls) == 4:
            raise MemoryError
        return transform(record, job)

    transform = views.transform
    monkeypatch.setattr(views, "transform", failing)
    with pytest.raises(FailureError, match=r"000\d/o\d: MemoryError"):
        shard(tar, tmp_path / "out")
    monkeypatch.setattr(views, "transform", transform)
    assert list((tmp_path / "out").glob("*.tar"))
    monkeypatch.setattr(ObjectTar, "list", lambda self: pytest.fail("listed again"))
    shard(tar, tmp_path / "out")
    assert same_folders(tmp_path / "out", tmp_path / "whole")


def test_keys() -> None:
    assert sample_key("02691156", "dc8d9003") == "02691156_dc8d9003"
    odd = [sample_key(*pair) for pair in (("a_b", "c"), ("a", "b_c"), ("a.b", "c"), ("a b", "c"), ("x" * 50, "y" * 50))]
    assert len(set(odd)) == 5
    assert all(len(key) <= 80 and key.replace("-", "").replace("_", "").isalnum() for key in odd)


def test_no_torch_and_no_bar_when_not_a_terminal(tree: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipelines.build.views import shard_views\n"
        "from pipelines.sources.three_diebench import ThreeDIEBenchSource\n"
        "if __name__ == '__main__':\n"
        "    source = ThreeDIEBenchSource(sys.argv[1], val_match='o1')\n"
        "    shard_views(source, Path(sys.argv[2]), size=16, workers=1)\n"
        "    assert not {'torch', 'webdataset'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tree), str(tmp_path / "out")],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": python_path()},
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_grey_jpegs_become_rgb(tree: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(smooth_image(0)[..., 0]).save(buffer, "JPEG")
    (tree / "0001/o1/image_0.jpg").write_bytes(buffer.getvalue())
    shard(tree, tmp_path / "out", encoding="raw", size=32)
    view = ShardSet.open(tmp_path / "out").split("val").read_view(0, 0)
    assert np.array_equal(view, np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")))
