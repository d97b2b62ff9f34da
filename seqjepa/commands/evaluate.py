"""`seqjepa evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shards.console import AsJson, Device, Shards, print_json


def evaluate_command(
    run: Annotated[
        Path, typer.Argument(help="Run directory, hf://USER/REPO, or an address as s3://bucket/run.", metavar="RUN")
    ],
    shards: Shards,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            metavar="all|EPOCHS",
            help="Evaluate weights that train.keep_epochs kept on the way: all, or epochs.",
        ),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(help="What is measured: probes alone, or more: 3diebench, stl10, augmentations, retrieval, all."),
    ] = "probes",
    ood: Annotated[
        Path | None, typer.Option(help="Shards with rotations that training never saw: probes are shown them too.")
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Measure the untrained network instead, to compare with.")
    ] = False,
    probe_epochs: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Epochs of every probe. Default: the paper's 300, and 50 for linear regressors."
        ),
    ] = None,
    m_val: Annotated[str, typer.Option(help="How many views z_AGG is made from: 5, 1,3,5 or 1-8.")] = "1-8",
    path: Annotated[
        bool | None,
        typer.Option(
            "--path/--no-path",
            help="Path integration: the way over several views. Default: of positions; of rotations on a GPU.",
        ),
    ] = None,
    patch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side of patches in pixels. Default: as in training; 32 for runs on augmented images.",
        ),
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(
            help="run, shards, or published: stl10, cifar100-paper … Default: the run's, in transfer the set's."
        ),
    ] = None,
    train_draws: Annotated[
        int | None,
        typer.Option(
            min=1, help="Draws of fixations or augmentations of a training image. Default: 8; on a GPU as many as fit."
        ),
    ] = None,
    standardise: Annotated[
        bool,
        typer.Option(
            "--standardise", help="Linear regressors see standardised features, which the paper's do not (its §A.2)."
        ),
    ] = False,
    unpooled: Annotated[
        bool, typer.Option("--unpooled", help="Rotations are read from the feature map before pooling too.")
    ] = False,
    val_draws: Annotated[
        int, typer.Option(min=1, max=1000, help="Draws on which each validation sample is scored.")
    ] = 1,
    contexts: Annotated[
        str | None,
        typer.Option(help="ContextSSL: tokens before a view, as 0,14,126. Default: as many as there is room."),
    ] = None,
    train_split: Annotated[str | None, typer.Option(help="Split on which probes learn. Default: train.")] = None,
    val_split: Annotated[
        str | None, typer.Option(help="Split on which probes are scored. Default: val, else test.")
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the probes and of their draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure what frozen features know, by probes. Accuracies and R² are written to RUN/results.json.

    On images or patches of another size than in training: to RUN/results-SET-SIZE-patchN.json. Of weights on the way:
    to RUN/evaluation/checkpoints/epoch-N/results.json; interrupted, the same command goes on where it was.

    \b
    Examples:
      seqjepa evaluate runs/3die-rot-M3 --shards shards/3die
      seqjepa evaluate runs/3die-rot-M3 --shards shards/3die --suite 3diebench --ood shards/3die-ood
      seqjepa evaluate runs/3die-rot-M3 --shards shards/3die --untrained --json
      seqjepa evaluate runs/3die-rot-M3 --shards shards/3die --checkpoints all
      seqjepa evaluate runs/stl-pls-M4 --shards shards/stl10 --m-val 1-6
      seqjepa evaluate runs/stl-pls-M4 --shards shards/imagenet224 --patch 84
    """
    options = {
        name: value for name, value in locals().items() if name not in ("run", "shards", "checkpoints", "as_json")
    }
    options["m_val"] = parse_sizes(m_val)
    options["contexts"] = None if contexts is None else parse_sizes(contexts, "--contexts", 0, 8190)
    if checkpoints is None:
        _evaluate(run, shards, options, as_json)
    else:
        epochs = None if checkpoints == "all" else parse_sizes(checkpoints, "--checkpoints", 1, 10**6)
        _evaluate_checkpoints(run, shards, epochs, options, as_json)


def _evaluate(run: Path, shards: Path, options: dict[str, Any], as_json: bool) -> None:
    from seqjepa.evaluate.results import format_table, read_results, results_file
    from seqjepa.evaluate.run import UnwrittenError, evaluate_run
    from seqjepa.hub import run_folder
    from seqjepa.training.run_store import push_results
    from seqjepa.training.stopping import Interrupted
    from shards.stores.store import as_address
    from shards.stores.store_write import WRITABLE

    folder, address = run_folder(run), as_address(run)
    try:
        results = evaluate_run(folder, shards, **options, out=folder)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the run and its earlier numbers are as they were") from None
    except UnwrittenError as error:  # hours of work: on the terminal at least
        alone = error.results
        print_json(alone) if as_json else typer.echo(format_table({alone["weights"]: alone}))
        raise
    if address.startswith(WRITABLE):
        push_results(address, folder)
    if as_json:
        print_json(results)
    else:
        file = results_file(results["protocol"])
        typer.echo(format_table(read_results(folder, file)))
        typer.echo(f"kept in {address.rstrip('/') if address.startswith(WRITABLE) else folder}/{file}")


def _evaluate_checkpoints(
    run: Path, shards: Path, epochs: list[int] | None, options: dict[str, Any], as_json: bool
) -> None:
    """A line each as it is there; numbers of a run in a store are sent at once."""
    from seqjepa.evaluate.checkpoints import evaluate_checkpoints
    from seqjepa.hub import run_folder
    from seqjepa.training.run_store import push_results
    from seqjepa.training.stopping import Interrupted
    from shards.stores.store import as_address
    from shards.stores.store_write import WRITABLE

    folder, address = run_folder(run, kept=True), as_address(run)

    def say(line: str) -> None:
        if address.startswith(WRITABLE):
            push_results(address, folder)
        typer.echo(line, err=as_json)

    try:
        found = evaluate_checkpoints(folder, shards, epochs, say=say, **options)
    except KeyboardInterrupt:
        raise Interrupted("stopped; what was measured is kept, and the same command goes on from there") from None
    if as_json:
        print_json({"run": str(run), "checkpoints": [checkpoint.as_json() for checkpoint in found]})


def parse_sizes(text: str, option: str = "--m-val", least: int = 1, most: int = 64) -> list[int]:
    """ "1,3,5-7" → [1, 3, 5, 6, 7]. UsageError for anything else, and for sizes that are not `least` to `most`."""
    from shards.errors import UsageError

    sizes: list[int] = []
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise UsageError(f"{option} is {text!r}; give numbers and ranges such as 5 or 1,3,5 or 1-8")
        low, high = int(first), int(last or first)
        if not least <= low <= high <= most:
            raise UsageError(f"{option} is {text!r}; sizes are {least} to {most}, and ranges go upwards")
        sizes += range(low, high + 1)
    return sorted(set(sizes))
