"""ImageNet as people have it: Kaggle's tree, a flat val/ with its labels beside it, packed archives, equal names."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from small_images import encoded, make_folder, make_tar, picture

from pipelines.sources import ImageSource, open_source
from shards.errors import FormatError

A, B = "n01440764", "n02123045"
KAGGLE = "ILSVRC/Data/CLS-LOC"
VAL = [f"ILSVRC2012_val_{i:08d}" for i in (1, 2, 3)]


def described(source: ImageSource) -> list[tuple[str, str, str | None]]:
    classes = (*source.classes, None)
    return [(record.split, record.key, classes[record.label]) for record in source.records()]


def kaggle_tree(root: Path) -> Path:
    names = [f"train/{A}/{A}_7.JPEG", f"train/{B}/{B}_1.JPEG", *(f"val/{stem}.JPEG" for stem in VAL)]
    names += [f"test/ILSVRC2012_test_{i:08d}.JPEG" for i in (1, 2)]
    make_folder(root, [f"{KAGGLE}/{name}" for name in names], 4, 4)
    annotations = root / "ILSVRC/Annotations/CLS-LOC/val"
    annotations.mkdir(parents=True)
    (annotations / f"{VAL[0]}.xml").write_text("<annotation/>")
    rows = [f"{VAL[2]},{A} 85 1 499 272 ", f"{VAL[0]},{B} 1 2 3 4 {B} 5 6 7 8 ", f"{VAL[1]},{A} 0 0 9 9 "]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows, ""]))
    return root


EXPECTED = [
    ("train", f"{A}_7", A),
    ("train", f"{B}_1", B),
    ("val", VAL[0], B),
    ("val", VAL[1], A),
    ("val", VAL[2], A),
]


def test_kaggles_tree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = kaggle_tree(tmp_path / "kaggle")
    for path in (folder, make_tar(folder, tmp_path / "kaggle.tar")):
        source = open_source("imagenet", path)
        assert described(source) == EXPECTED
        with Image.open(folder / KAGGLE / f"val/{VAL[1]}.JPEG") as image:
            assert np.array_equal(source.read(source.records()[3]), np.asarray(image))
        assert source.left_out == 3  # two test images, one annotation
        assert "2 images of test/ have no labels and are left out" in caplog.text
        caplog.clear()
        as_folder = open_source("folder", path)
        assert as_folder.classes == (A, B)  # what ImageNet alone knows moves no other source's folders
        assert {record.split for record in as_folder.records()} == {"train", "val", "test"}
        caplog.clear()


def add_devkit(folder: Path, truth: str = "2\n1\n1\n") -> Path:
    """As the distributed one: a struct array of synsets, one a row, with more than the leaves."""
    data = folder / "ILSVRC2012_devkit_t12/data"
    data.mkdir(parents=True)
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(1, A, "tench, Tinca tinca", 0), (2, B, "tabby, tabby cat", 0), (3, "n00001740", "entity", 2)]
    savemat(data / "meta.mat", {"synsets": np.array(rows, kind)[:, None]})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    return folder


def test_a_flat_val_with_the_development_kit(tmp_path: Path) -> None:
    names = [f"train/{A}/{A}_7.JPEG", f"train/{B}/{B}_1.JPEG", *(f"val/{stem}.JPEG" for stem in VAL)]
    folder = make_folder(tmp_path / "net", names, 4, 4)
    with pytest.raises(FormatError, match=r"val_00000001\.JPEG has no label: .*LOC_val_solution.*tar -xzf ILS"):
        open_source("imagenet", folder).records()
    rows = "".join(f'"{stem}.JPEG","{label} 1 2 3 4 "\r\n' for stem, label in zip(VAL, (B, A, A), strict=True))
    (folder / "LOC_val_solution.csv").write_text(f'"ImageId","PredictionString"\r\n{rows}')  # as a spreadsheet saves it
    assert described(open_source("imagenet", folder)) == EXPECTED
    (folder / "LOC_val_solution.csv").unlink()
    add_devkit(folder)
    for path in (folder, make_tar(folder, tmp_path / "net.tar")):
        assert described(open_source("imagenet", path)) == EXPECTED
    make_folder(folder, [f"val/{A}/{VAL[1]}.JPEG"], 4, 4)
    with pytest.raises(FormatError, match=f"{VAL[1]}.JPEG lie in val/ both in folders of classes and outside; remove"):
        open_source("imagenet", folder).records()


def test_label_files_that_are_none(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "net", [f"val/{stem}.JPEG" for stem in VAL], 4, 4)
    add_devkit(folder, "2\n77\n1\n")
    with pytest.raises(FormatError, match=r"ground_truth\.txt has '77', which .*meta\.mat does not know"):
        open_source("imagenet", folder).records()
    (folder / "ILSVRC2012_devkit_t12/data/meta.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    with pytest.raises(FormatError, match=r"meta\.mat is not the development kit's table"):
        open_source("imagenet", folder).records()
    (folder / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{VAL[0]},cat 1 2 3 4\n")
    with pytest.raises(FormatError, match=r"LOC_val_solution\.csv: the line of 'ILSVRC2012_val_00000001' has no"):
        open_source("imagenet", folder).records()
    lines = "".join(f"{VAL[0]},n0144076{digit} 1 2 3 4\n" for digit in (4, 4, 5))
    (folder / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{lines}")
    with pytest.raises(
        FormatError, match=r"csv: ILSVRC2012_val_00000001 has the labels n01440764 and n01440765; remove"
    ):
        open_source("imagenet", folder).records()


def test_equal_names_in_different_classes(tmp_path: Path) -> None:
    """ImageNet-Sketch and ImageNet-R number anew in each class; other splits keep the keys that they had."""
    names = [f"val/{wnid}/sketch_{i}.JPEG" for wnid in (A, B) for i in (0, 1)] + [f"train/{A}/{A}_7.JPEG"]
    assert described(open_source("imagenet", make_folder(tmp_path / "net", names, 4, 4))) == [
        ("train", f"{A}_7", A),
        *[("val", f"{wnid}_sketch_{i}", wnid) for wnid in (A, B) for i in (0, 1)],
    ]


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def official(root: Path) -> Path:
    """The three distributed archives, in small."""
    jpeg = {name: encoded(picture(seed, 8, 8), "jpg") for seed, name in enumerate((f"{A}_7", f"{B}_1", *VAL))}
    inner = {}
    for wnid in (A, B):
        inner[f"{wnid}.tar"] = tar_of(
            root / f"{wnid}.tar", {f"{name}.JPEG": data for name, data in jpeg.items() if name.startswith(wnid)}
        )
    tar_of(root / "ILSVRC2012_img_train.tar", {name: path.read_bytes() for name, path in inner.items()})
    for path in inner.values():
        path.unlink()
    tar_of(root / "ILSVRC2012_img_val.tar", {f"{stem}.JPEG": jpeg[stem] for stem in VAL})
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        tar.add(add_devkit(root / "kit") / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    return root


def test_the_official_archives_say_exactly_what_to_do(tmp_path: Path) -> None:
    """The commands of the message are run, and what comes of them is read."""
    root = official(tmp_path / "net")
    commands = set()
    for path in (root, root / "ILSVRC2012_img_train.tar"):
        with pytest.raises(FormatError, match=r"a tar inside it that is not unpacked") as error:
            open_source("imagenet", path).records()
        assert "\n" not in str(error.value)
        commands.add(str(error.value).partition("unpack all with: ")[2])
    with pytest.raises(FormatError, match=r"put all of these images into a folder val"):
        open_source("imagenet", root / "ILSVRC2012_img_val.tar").records()
    (command,) = commands
    subprocess.run(["bash", "-ec", command], cwd=root, check=True)
    assert described(open_source("imagenet", root / "imagenet")) == EXPECTED


def test_a_half_unpacked_set_is_no_whole_one(tmp_path: Path) -> None:
    """Classes whose tars still lie there would be missing without a word."""
    folder = make_folder(tmp_path / "net", [f"train/{A}/{A}_7.JPEG", f"val/{A}/x.JPEG"], 4, 4)
    tar_of(folder / f"train/{B}.tar", {f"{B}_1.JPEG": b"x"})
    with pytest.raises(FormatError, match=rf"holds train/{B}\.tar, a tar inside it"):
        open_source("imagenet", folder).records()
    (folder / f"train/{B}.tar").rename(folder / "ILSVRC2012_img_train.tar")  # kept beside what was unpacked from it
    assert len(open_source("imagenet", folder).records()) == 2


def test_other_folders(tmp_path: Path) -> None:
    two = make_folder(tmp_path / "two", [f"val/{A}/1.JPEG", f"validation/{B}/2.JPEG"], 4, 4)
    with pytest.raises(FormatError, match="both the split val"):
        open_source("imagenet", two).records()
    bare = make_folder(tmp_path / "bare", [f"{A}/1.JPEG", f"{B}/2.JPEG"], 4, 4)
    with pytest.raises(FormatError, match=r"does not lie in train/<wnid>/.*mkdir val && mv n\* val"):
        open_source("imagenet", bare).records()
    deep = make_folder(tmp_path / "deep", [f"dev/data/TRAIN/{A}/1.JPEG", f"dev/data/Val/{B}/2.JPEG"], 4, 4)
    assert described(open_source("imagenet", deep)) == [("train", "1", A), ("val", "2", B)]
