"""The tutorial of docs/own-data.md: its ten commands, in their order, on a few photographs and a CSV."""

from __future__ import annotations

import colorsys
import json
import re
from pathlib import Path

import docs_text
import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

import cli

PAGE = Path("docs/own-data.md")
APPS = {"seqjepa": cli.seqjepa_app, "seqjepa-data": cli.seqjepa_data_app}
QUICK = {
    "train": ("--epochs", "1", "--set", "model.width=0.125", "--workers", "0"),
    "evaluate": ("--probe-epochs", "2", "--m-val", "1-2"),
    "shard": ("--workers", "0"),
}
"""What a test adds to a command, so that ten take seconds."""


def photographs(folder: Path, things: int = 10, views: int = 5) -> None:
    """Bars of a colour of their own on a turntable, metadata.csv and actions.toml as the page shows them."""
    text = (docs_text.ROOT / PAGE).read_text(encoding="utf-8")
    header = re.search(r"^ {4}(file_name,sequence,.*)$", text, re.MULTILINE)
    declared = re.search(r"^ {4}\[units\]\n.*?columns = \[\"angle\"\]$", text, re.MULTILINE | re.DOTALL)
    assert header
    assert declared
    rows = [header[1]]
    for thing in range(things):
        (folder / f"thing{thing}").mkdir(parents=True)
        colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(thing / things, 0.9, 0.9))
        for view in range(views):
            angle = 360 * view // views
            image = Image.new("RGB", (80, 72), "white")
            end = 36 + 30 * np.cos(np.radians(angle)), 36 + 30 * np.sin(np.radians(angle))
            ImageDraw.Draw(image).line([(36, 36), end], fill=colour, width=9)
            image.save(folder / f"thing{thing}" / f"{view:03d}.jpg", quality=92)
            split = "val" if thing >= things - 3 else "train"
            rows.append(f"thing{thing}/{view:03d}.jpg,thing{thing},thing{thing % 2},{split},{angle}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "actions.toml").write_text(re.sub("^ {4}", "", declared[0], flags=re.MULTILINE))


def commands() -> list[str]:
    block = re.search(r"^```sh\n(.*?)^```$", (docs_text.ROOT / PAGE).read_text(encoding="utf-8"), re.M | re.S)
    assert block
    return docs_text.calls_in(block[1])


def test_ten_commands_from_photographs_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    calls = commands()
    assert len(calls) == 10
    said = []
    for call in calls:
        app, *words = docs_text.arguments(call)
        done = CliRunner().invoke(APPS[app], [*words, *QUICK.get(words[0], ())])
        assert done.exit_code == 0, f"{call}: {done.output}"
        said.append(done.output)
    assert "angle_difference of angle" in said[1]
    assert "0 mistakes" in said[1]
    assert "sound" in said[3]
    assert "runs/photos: trained 1 epoch, last loss" in said[6]
    assert said[7].endswith("kept in runs/photos/results.json\n")
    assert "1 run, 1 of them evaluated" in said[9]
    results = json.loads(Path("runs/photos/results.json").read_text())
    for weights in ("trained", "untrained"):
        assert {"r2_rel_term1_avg", "r2_indiv_term1_avg", "indiv_term1_deg", "top1_z", "top1_agg"} <= set(
            results[weights]
        )
    page = Path("report.html").read_text()
    assert "angle" in page
    for picture in ("check.png", "sheet.png"):
        with Image.open(picture) as opened:
            assert opened.width > 400
