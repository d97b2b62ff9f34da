"""The notebooks of docs/: they are tidy, and run from nothing to what their text says."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MOST_BYTES = 400_000
OURS_ALONE = re.compile(r"/(?:tmp|root|home|work|Users)/")


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def printed(path: Path) -> str:
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    return "".join("".join(output.get("text", "")) for output in outputs)


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first_run", "world_model"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_tidy(path: Path) -> None:
    """Cells compile; outputs are small, are no errors, were made in order, and name no folder of a machine."""
    assert path.stat().st_size < MOST_BYTES
    assert len(cells(path, "markdown")) >= 5, "a tutorial explains"
    for cell in cells(path, "code"):
        source = "".join(cell["source"])
        if not source.startswith("%%bash\n"):
            compile(source, path.name, "exec")
        assert cell["execution_count"] is None
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert not OURS_ALONE.search(json.dumps({**output, "data": {}}))
    assert any("image/png" in output.get("data", {}) for cell in cells(path, "code") for output in cell["outputs"])


def results(text: str, stem: str) -> None:
    """What a notebook's text claims, in the numbers that its cells printed."""
    if stem == "first_run":
        share = {name: float(value) for name, value in re.findall(r"^([\w ]+): (0\.\d+)", text, re.MULTILINE)}
        assert share["trained"] > share["untrained"] + 0.05
        assert share["untrained"] > share["by chance"]
        assert share["8 views"] > share["1 views"]
    else:
        after = {name: list(map(float, re.findall(r"(\d\.\d+) after", line))) for name, line in lines_of_errors(text)}
        assert after["rollout"][1] < 0.6 * after["it stays where it is"][1]
        assert after["rollout"][1] < 0.5 * after["untrained"][1]
        start, end = map(float, re.findall(r"goal: (\d\.\d+) at the start, (\d\.\d+) after", text)[0])
        assert end < 0.6 * start


def lines_of_errors(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^[“]?(rollout|untrained|it stays where it is)[”]?, (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_stored_outputs_say_what_the_text_says(path: Path) -> None:
    results(printed(path), path.stem)


@pytest.mark.tools
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_nothing(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "tests" / "notebook_runs.py", path, "--out", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    again = tmp_path / path.name
    assert [cell["source"] for cell in cells(again, "code")] == [cell["source"] for cell in cells(path, "code")]
    results(printed(again), path.stem)


def hook() -> Any:
    spec = importlib.util.spec_from_file_location("docs_notebooks", ROOT / "docs" / "hooks" / "notebooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_notebook_as_a_page() -> None:
    picture = {"output_type": "display_data", "data": {"image/png": "aGk=", "text/plain": "<Figure>"}}
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "Text"]},
            {"cell_type": "code", "source": "%%bash\nls", "outputs": [{"output_type": "stream", "text": ["a\n"]}]},
            {"cell_type": "code", "source": "x = '```'", "outputs": [picture]},
            {"cell_type": "code", "source": "1", "outputs": [{"data": {"text/plain": "1"}}]},
        ]
    }
    text, pictures = hook().page_of(notebook, "n.ipynb")
    assert pictures == [b"hi"]
    assert text.startswith('# Title\nText\n\n<p><a href="n.ipynb" download>')
    assert "```sh\nls\n```\n\n```text\na\n```" in text
    assert "````python\nx = '```'\n````\n\n![What the code draws](n-1.png)" in text
    assert text.endswith("```python\n1\n```\n\n```text\n1\n```")
