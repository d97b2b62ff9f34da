"""`seqjepa demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, Workers, print_json
from shards.errors import UsageError

FOLDERS = {"objects": Path("demo"), "saccades": Path("demo-saccades"), "augmentations": Path("demo-augmentations")}


def demo_command(
    which: Annotated[str, typer.Argument(help="objects, saccades or augmentations.", metavar="[WHICH]")] = "objects",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the demo. Default: demo, or demo-WHICH.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data and of the training.")] = 0,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """A whole path in minutes, from a data set to a report. Renders, shards, verifies, trains, evaluates.

    \b
    Examples:
      seqjepa demo                  # objects seen from several sides
      seqjepa demo saccades         # glances at salient places of a picture
      seqjepa demo augmentations    # crops of a picture
    """
    if which not in FOLDERS:
        raise UsageError(f"demo {which!r} is not known; allowed are {', '.join(FOLDERS)}")
    from seqjepa.experiments.demos import DEMOS, run_demo
    from shards.stores.store import require_no_address

    say = None if as_json else typer.echo
    require_no_address(out or "", "--out")
    results = run_demo(DEMOS[which](seed=seed), out or FOLDERS[which], workers=workers, say=say)
    if as_json:
        print_json(results)
