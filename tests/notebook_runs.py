"""Running the notebooks of docs/: `python tests/notebook_runs.py` stores new outputs in all of them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
MOST_SECONDS = 1800  # of a cell, on a busy machine


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs that its cells gave in `folder`: text of a cell in one piece, no times."""
    notebook = nbformat.read(path, 4)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=MOST_SECONDS, resources=where, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = joined(cell.outputs)
    return notebook


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What was printed in one output; pictures after it, without their number."""
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    printed = [nbformat.v4.new_output("stream", name="stdout", text=text)] if text else []
    shown = [output for output in outputs if output.output_type != "stream"]
    for output in shown:
        if "execution_count" in output:
            output.execution_count = None
    return [*printed, *shown]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(NOTEBOOKS.glob("*.ipynb")))
    parser.add_argument("--out", type=Path, default=NOTEBOOKS, help="folder of the notebooks with their outputs")
    asked = parser.parse_args()
    for path in asked.notebooks:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(run(path, Path(folder)), asked.out / path.name)


if __name__ == "__main__":
    main()
