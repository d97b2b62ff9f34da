"""score-saliency on maps whose scores are known, and on tables that are wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_images import make_folder
from typer.testing import CliRunner

from pipelines.build.images import shard_images
from pipelines.commands.saliency import score_saliency_command
from pipelines.saliency.build import build_saliency
from pipelines.saliency.models import ModelChoice
from pipelines.saliency.offline_models import gaussian_density
from pipelines.saliency.scoring import choose_subjects, read_fixations, score_saliency
from pipelines.sources import open_source
from shards.console import new_app
from shards.errors import FormatError, UsageError
from shards.saliency_map import encode_map
from shards.sample import MapSample
from shards.schema import MapSpec
from shards.writer import SetBuilder

HEIGHT, WIDTH = 30, 40


def make_maps(out: Path, maps: dict[str, np.ndarray], image_size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    with SetBuilder(out, name="maps", spec=MapSpec("float16"), classes=[], fingerprint={}) as builder:
        with builder.open_shard("train", 0) as shard:
            for number, (file, p) in enumerate(maps.items()):
                meta = {"file": file, "image_height": image_size[0], "image_width": image_size[1]}
                height, width = p.shape
                shard.add(MapSample(f"k{number}", encode_map(p, "float16"), height, width, meta=meta))
        builder.finish({"saliency_model": {"model": "made up"}})
    return out


def write_csv(path: Path, rows: Sequence[Sequence[object]], header: str = "image,subject,x,y") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


@pytest.fixture
def three_peaks(tmp_path: Path) -> Path:
    """Three images, each with nearly all of its mass around one place: (row, col) (5, 8), (20, 30), (10, 20)."""
    maps = {}
    for name, (row, col) in {"a.jpg": (5, 8), "sub/b.jpg": (20, 30), "sub/c.jpg": (10, 20)}.items():
        dots = np.zeros((HEIGHT, WIDTH), np.float32)
        dots[row, col] = 1
        maps[name] = cv2.GaussianBlur(dots, (0, 0), 2) + 1e-6
    return make_maps(tmp_path / "maps", maps)


LOOKS = [("a.jpg", "1", 8.2, 5.9), ("b.jpg", "1", 30.0, 20.0), ("c.jpg", "1", 20.5, 10.5)]


def test_people_who_look_at_the_peaks(three_peaks: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "f.csv", [*LOOKS, *LOOKS[:2]])
    found = score_saliency(three_peaks, table, progress=False)
    peak = 1 - 0.5 / (HEIGHT * WIDTH)  # the pixel itself is one of the negatives
    assert found["auc"] == pytest.approx(peak, abs=1e-6)
    assert found["sauc"] == 1
    assert found["images"] == 3
    assert found["fixations"] == 5
    p = np.full((HEIGHT, WIDTH), 1e-6)
    dots = np.zeros((HEIGHT, WIDTH), np.float32)
    gains, standard = [], []
    for row, col in ((5, 8), (20, 30), (10, 20)):
        dots[:] = 0
        dots[row, col] = 1
        p = cv2.GaussianBlur(dots, (0, 0), 2).astype(np.float64) + 1e-6
        gains.append(np.log2(p[row, col] / p.sum()) - np.log2(gaussian_density(HEIGHT, WIDTH)[row, col].item()))
        standard.append((p[row, col] - p.mean()) / p.std())
    assert found["ig"] == pytest.approx(np.mean(gains), rel=1e-3)
    assert found["nss"] == pytest.approx(np.mean(standard), rel=1e-3)
    assert found["prior"] == "centre bias alone (Gaussian), not DeepGaze"
    assert found["model"] == {"model": "made up"}


def test_negatives_are_other_people_on_other_images(three_peaks: Path, tmp_path: Path) -> None:
    """Person 2 is scored. Only person 1 on b.jpg is a negative of a.jpg: person 2 there, at a.jpg's peak, is none."""
    rows = [("a.jpg", "2", 8, 5), ("b.jpg", "2", 8, 5), ("a.jpg", "1", 8, 5), ("b.jpg", "1", 0, 29)]
    found = score_saliency(three_peaks, write_csv(tmp_path / "f.csv", rows), subjects="2", progress=False)
    of_a, of_b = 1.0, 0.5  # b.jpg's map is flat at both places
    assert found["sauc"] == pytest.approx((of_a + of_b) / 2)
    everybody = score_saliency(three_peaks, write_csv(tmp_path / "g.csv", rows), progress=False)
    assert everybody["sauc"] == pytest.approx((0.75 + (0.5 * 2 + 0.5 * 2) / 4) / 2)


def test_maps_that_are_smaller_than_their_images(tmp_path: Path) -> None:
    p = np.full((3, 4), 1e-3)
    p[2, 1] = 1
    maps = make_maps(tmp_path / "maps", {"a.jpg": p, "b.jpg": p.T[:3, :3] + 1})
    table = write_csv(tmp_path / "f.csv", [("a.jpg", "1", 10.0, 29.9), ("a.jpg", "1", 19.9, 20.0)])
    found = score_saliency(maps, table, progress=False)
    assert found["auc"] == pytest.approx(1 - 0.5 / 12)
    assert np.isnan(found["sauc"])


def test_images_are_found_by_key_path_or_name(three_peaks: Path, tmp_path: Path) -> None:
    for names in (("k0", "k1"), ("a.jpg", "sub/b.jpg"), ("a.jpg", "b.jpg")):
        rows = [(names[0], "x", 1, 1), (names[1], "y", 2, 2)]
        assert score_saliency(three_peaks, write_csv(tmp_path / "f.csv", rows), progress=False)["images"] == 2


BAD_TABLES = {
    "columns": ("image,x,y", [("a.jpg", 1, 1)], "no column subject; .* are needed, there are image, x, y"),
    "there": (None, [], r"f\.csv is not there; give a CSV with columns image, subject, x, y"),
    "number": ("image,subject,x,y", [(*LOOKS[0],), ("a.jpg", 1, "left", 2)], r"line 3: .* found .*x='left'"),
    "nan": ("image,subject,x,y", [("a.jpg", 1, "nan", 2)], "line 2"),
    "short": ("image,subject,x,y", [("a.jpg", 1, 3)], "line 2: image, subject and two numbers"),
    "twice": ("image,subject,x,y,x", [(*LOOKS[0], 3)], "has two columns x; take one out"),
    "shares": ("image,subject,x,y", [("a.jpg", 1, 0.25, 0.5), ("a.jpg", 2, 1, 0)], "at most 1, shares of the sides"),
    "empty": ("image,subject,x,y", [], "holds no fixations"),
    "unknown": ("image,subject,x,y", [("q.jpg", 1, 1, 1), ("r.jpg", 1, 1, 1)], r"q.jpg and 1 more of 2 images have no"),
    "outside": ("image,subject,x,y", [*LOOKS, ("b.jpg", 1, 40, 3)], r"1 of 4 fixations lie outside .* \(40, 3\) in b"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_bad_tables_are_one_line_and_exit_code_2(three_peaks: Path, tmp_path: Path, kind: str) -> None:
    header, rows, words = BAD_TABLES[kind]
    table = write_csv(tmp_path / "f.csv", rows, header) if header else tmp_path / "f.csv"
    with pytest.raises(FormatError, match=words):
        score_saliency(three_peaks, table, progress=False)
    result = invoke(["--maps", str(three_peaks), "--fixations", str(table)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("size", [None, 64])
def test_images_that_were_resized_are_refused(tmp_path: Path, size: int | None) -> None:
    """Places in the original image would be read as places in the larger one, where none is outside."""
    folder = make_folder(tmp_path / "f", ["a.png", "b.png"], 24, 32)
    source = open_source("folder", folder)
    build_saliency(source, tmp_path / "maps", ModelChoice("centre-bias"), workers=0)
    shard_images(source, tmp_path / "set", maps=tmp_path / "maps", size=size, workers=0)
    table = write_csv(tmp_path / "f.csv", [("a.png", "1", 3, 5), ("b.png", "2", 30, 20)])
    maps = score_saliency(tmp_path / "maps", table, progress=False)
    if size is None:
        assert score_saliency(tmp_path / "set", table, progress=False)["auc"] == maps["auc"]
        return
    with pytest.raises(UsageError, match=r"set was resized \(squash, .*; give the set of maps that it was made of"):
        score_saliency(tmp_path / "set", table, progress=False)


def test_fixations_outside_can_be_dropped(three_peaks: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "f.csv", [*LOOKS, ("b.jpg", 1, 40, 3), ("b.jpg", 1, 3, -0.1)])
    found = score_saliency(three_peaks, table, drop_outside=True, progress=False)
    assert found["outside"] == 2
    assert found["fixations"] == 3


def test_names_that_could_be_two_images(tmp_path: Path) -> None:
    p = np.ones((HEIGHT, WIDTH))
    maps = make_maps(tmp_path / "maps", {"x/a.jpg": p, "y/a.jpg": p})
    with pytest.raises(FormatError, match="could be several images"):
        score_saliency(maps, write_csv(tmp_path / "f.csv", LOOKS[:1]), progress=False)


def test_who_is_chosen(tmp_path: Path) -> None:
    rows = [("a.jpg", subject, 1, 1) for subject in ("10", "2", "1", "anna", "10", "²")]
    table = read_fixations(write_csv(tmp_path / "f.csv", rows))
    assert choose_subjects(table, None) == ["1", "2", "10", "anna", "²"]
    assert choose_subjects(table, "last2") == ["anna", "²"]
    assert choose_subjects(table, "first3") == ["1", "2", "10"]
    assert choose_subjects(table, "anna, 2") == ["anna", "2"]
    for text, words in (("last6", "has 5 subjects"), ("bob", "no bob in"), ("last0", "has 5 subjects")):
        with pytest.raises(UsageError, match=words):
            choose_subjects(table, text)


def invoke(arguments: list[str]):
    app = new_app("Scores.")
    app.command("score-saliency")(score_saliency_command)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["score-saliency", *arguments])


def test_the_command_prints_text_or_json(three_peaks: Path, tmp_path: Path) -> None:
    arguments = ["--maps", str(three_peaks), "--fixations", str(write_csv(tmp_path / "f.csv", LOOKS))]
    text = invoke(arguments)
    assert text.exit_code == 0, text.output
    assert "made up" in text.stdout
    found = json.loads(invoke([*arguments, "--json"]).stdout)
    assert {"auc", "sauc", "nss", "ig", "images", "fixations"} <= set(found)
    assert found["fixations"] == 3
