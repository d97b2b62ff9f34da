"""The command line: two Typer apps, `seqjepa` and `seqjepa-data`. Parse, build the arguments, call, print.

Heavy imports (torch, pyarrow, OpenCV) stay inside the commands, so that `--help` answers at once. Errors of
our own tree (shards/errors.py) become one line on stderr and their exit code; anything else is a bug and keeps
its traceback.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from shards.errors import SeqJepaError


class OneLineErrors(TyperGroup):
    """Prints a SeqJepaError as one line and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SeqJepaError as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("stopped; what is finished is kept, and the same command goes on from there", err=True)
            raise typer.Exit(130) from None


def new_app(help_text: str) -> typer.Typer:
    return typer.Typer(
        cls=OneLineErrors,
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )


seqjepa_app = new_app("Train and evaluate seq-JEPA from shards of views and actions.")
seqjepa_data_app = new_app("Turn data sets on disk into shards, and look after shards.")
shard_app = new_app("Write shards from a data set on disk.")
synth_app = new_app("Write a procedural data set: no download, no licence.")
recipes_app = new_app("The recipes that come with the package, one for each row of the paper's tables.")
seqjepa_data_app.add_typer(shard_app, name="shard")
seqjepa_data_app.add_typer(synth_app, name="synth")
seqjepa_app.add_typer(recipes_app, name="recipes")

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write; made if missing, resumed if it is ours.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what an earlier, different run of ours wrote there.")
]
Workers = Annotated[int | None, typer.Option(min=0, help="Worker processes. Default: one for each usable core.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Shards = Annotated[Path, typer.Option("--shards", help="Folder of a shard set.")]
ShardFolder = Annotated[Path, typer.Argument(help="Folder of a shard set.", metavar="DIR")]


@seqjepa_app.callback()
@seqjepa_data_app.callback()
def set_up_logging(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is going on.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, sort_keys=False, default=str))


# ── seqjepa-data ────────────────────────────────────────────────────────────────────────────────────────


@shard_app.command("3diebench")
def shard_3diebench_command(
    source: Annotated[Path, typer.Option(help="Unpacked tree, or 3DIEBench.tar.gz read as a stream (never unpacked).")],
    out: Out,
    split_lists: Annotated[
        Path | None, typer.Option(help="Folder with the distributed val_images.npy (and train_images.npy).")
    ] = None,
    val_match: Annotated[
        str | None, typer.Option(help="Other data: objects of this name are the validation split.")
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Other data: this share of objects, chosen by name.")
    ] = None,
    split: Annotated[str, typer.Option(help="all, train, val, or ood for the out-of-distribution set.")] = "all",
    size: Annotated[int, typer.Option(min=8, max=1024, help="Pixels of a side after resizing.")] = 128,
    encoding: Annotated[str, typer.Option(help="jpeg, or raw pixels.")] = "jpeg",
    jpeg_quality: Annotated[
        str, typer.Option(help="auto: the fastest to decode with 41 dB or more; or e.g. 444-90, 420-95.")
    ] = "auto",
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Objects in one tar.")] = 256,
    max_bad: Annotated[
        int, typer.Option(min=0, help="How many corrupt views or latents to leave out before giving up.")
    ] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many objects, for a try.")] = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """3DIEBench (or any data set in its layout) → `views` shards.

    \b
    Examples:
      seqjepa-data shard 3diebench --source 3DIEBench.tar.gz --split-lists lists/ --out shards/3die
      seqjepa-data shard 3diebench --source 3DIEBench-OOD/ --split ood --split-lists lists/ --out shards/ood
      seqjepa-data shard 3diebench --source my_renders/ --val-fraction 0.2 --out shards/mine

    Killed or interrupted, the same command goes on where it was.
    """
    from pipelines.three_diebench import shard_3diebench

    shard_3diebench(
        source,
        out,
        split_lists=split_lists,
        val_match=val_match,
        val_fraction=val_fraction,
        split=split,  # type: ignore[arg-type]
        size=size,
        encoding=encoding,  # type: ignore[arg-type]
        jpeg_quality=jpeg_quality,
        samples_per_shard=samples_per_shard,
        max_bad=max_bad,
        workers=workers,
        limit=limit,
        overwrite=overwrite,
    )
    show_contents(out, as_json)


@synth_app.command("3die")
def synth_3die_command(
    out: Out,
    objects: Annotated[int, typer.Option(help="How many objects; families take turns.")] = 384,
    views: Annotated[int, typer.Option(help="Views of an object.")] = 16,
    size: Annotated[int, typer.Option(help="Pixels of a side.")] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    ood: Annotated[
        bool,
        typer.Option("--ood", help="Rotations outside the training range (|angle| from 90 to 180 degrees)."),
    ] = False,
    families: Annotated[int | None, typer.Option(help="Only the first so many object families.")] = None,
    val_fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of objects in the validation split.")
    ] = 0.2,
    shards: Annotated[bool, typer.Option("--shards", help="Write shards instead of 3DIEBench's own folders.")] = False,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """3DIE-Synth: rendered objects with 3DIEBench's latents, in 3DIEBench's own layout on disk.

    \b
    Examples:
      seqjepa-data synth 3die --out synth/ --objects 384 --views 16 --size 64 --seed 0
      seqjepa-data synth 3die --out synth-ood/ --seed 0 --ood
      seqjepa-data synth 3die --out shards/synth --objects 4000 --views 50 --size 128 --shards --device cuda
    """
    from pipelines.synth import SynthConfig, synth_shards, synth_tree

    config = SynthConfig(
        objects=objects,
        views=views,
        size=size,
        seed=seed,
        ood=ood,
        families=families,
        val_fraction=val_fraction,
        device=device,
    )
    (synth_shards if shards else synth_tree)(config, out, overwrite=overwrite)
    typer.echo(f"{out}: {objects} objects, {views} views each at {size}×{size}")


@seqjepa_data_app.command("verify")
def verify_command(folder: ShardFolder, as_json: AsJson = False) -> None:
    """Read every byte of a set and hold it against the checksums. Exit code 1 if anything differs.

    Example:  seqjepa-data verify shards/3die
    """
    from dataclasses import asdict

    from shards.summary import human_bytes
    from shards.verify import verify

    report = verify(folder, progress=not as_json)
    if as_json:
        print_json({"ok": report.ok, **asdict(report)})
    else:
        for problem in report.problems:
            typer.echo(problem)
        state = "sound" if report.ok else f"{len(report.problems)} problem(s)"
        typer.echo(f"{folder}: {report.shards} shards, {human_bytes(report.bytes)}: {state}")
    raise typer.Exit(0 if report.ok else 1)


@seqjepa_data_app.command("info")
def info_command(folder: ShardFolder, as_json: AsJson = False) -> None:
    """What a set holds: splits, sizes, parameters with units, provenance.

    Example:  seqjepa-data info shards/3die --json
    """
    show_contents(folder, as_json)


@seqjepa_data_app.command("preview")
def preview_command(
    folder: ShardFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("preview.png"),
    split: Annotated[str | None, typer.Option(help="Default: the first split.")] = None,
    samples: Annotated[int, typer.Option(min=1, max=64)] = 8,
    views: Annotated[int, typer.Option(min=1, max=64)] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Which samples.")] = 0,
) -> None:
    """A contact sheet (PNG): views with their parameters.

    Example:  seqjepa-data preview shards/3die --out sheet.png --samples 6
    """
    from shards.preview import contact_sheet
    from shards.reader import ShardSet

    split = split or next(iter(ShardSet.open(folder).info.splits))
    typer.echo(str(contact_sheet(folder, split, out, samples=samples, views=views, seed=seed)))


def show_contents(folder: Path, as_json: bool) -> None:
    from shards.describe import describe
    from shards.summary import summarise

    contents = describe(folder)
    if as_json:
        print_json(contents)
    else:
        typer.echo(summarise(contents))


# ── seqjepa ─────────────────────────────────────────────────────────────────────────────────────────────


@seqjepa_app.command("train")
def train_command(
    shards: Shards,
    recipe: Annotated[str, typer.Option(help="A name from `seqjepa recipes ls`, or a path to a TOML file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run directory. Default: runs/RECIPE.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable.")
    ] = None,
    fidelity: Annotated[str | None, typer.Option(help="paper, or author: as the released code behaves.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    extend_epochs: Annotated[
        int | None, typer.Option(min=1, help="Go on to so many epochs; replans the schedule.")
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a method from shards. Interrupted, the same command goes on exactly where it was.

    \b
    Examples:
      seqjepa train --shards shards/3die --recipe 3die-rot-M3
      seqjepa train --shards shards/3die --recipe 3die-rot-M3 --out runs/b256 --set optim.batch_size=256
      torchrun --nproc-per-node 4 -m cli train --shards shards/3die --recipe 3die-rot-M3
    """
    from seqjepa.recipes import load_recipe
    from seqjepa.train import train

    everyday = {"fidelity": fidelity, "seed": seed, "optim.epochs": epochs}
    settings = [f"{key}={json.dumps(value)}" for key, value in everyday.items() if value is not None]
    config = load_recipe(recipe, settings + list(set_ or []))
    run = out or Path("runs") / config.name
    summary = train(
        config, shards, run, device=device, workers=workers, extend_epochs=extend_epochs, overwrite=overwrite
    )
    if as_json:
        print_json(summary)
    else:
        typer.echo(f"{run}: trained {summary['epochs']} epochs, last loss {summary['loss']:.4f}")


@seqjepa_app.command("evaluate")
def evaluate_command(
    run: Annotated[Path, typer.Argument(help="Run directory.", metavar="RUN")],
    shards: Shards,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="The same model at its initial weights, as the floor.")
    ] = False,
    probe_epochs: Annotated[
        int | None, typer.Option(min=1, help="Default: the paper's 300, and 50 for linear regressors.")
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the probes and of their draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train probes on frozen features: top-1, R² of rotation and hue. Written to RUN/results.json.

    \b
    Examples:
      seqjepa evaluate runs/3die-rot-M3 --shards shards/3die
      seqjepa evaluate runs/3die-rot-M3 --shards shards/3die --untrained --json
    """
    from seqjepa.evaluate.results import format_table, read_results
    from seqjepa.evaluate.suite import evaluate_run

    results = evaluate_run(
        run, shards, untrained=untrained, device=device, probe_epochs=probe_epochs, seed=seed, out=run
    )
    if as_json:
        print_json(results)
    else:
        typer.echo(format_table(read_results(run)))


@seqjepa_app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the demo.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """The whole path in minutes: synthesise, shard, verify, train, evaluate against untrained, report.

    Example:  seqjepa demo && xdg-open demo/report.html
    """
    from seqjepa.demo import run_demo

    results = run_demo(out, seed=seed, workers=workers, say=None if as_json else typer.echo)
    if as_json:
        print_json(results)


@recipes_app.command("ls")
def recipes_ls_command() -> None:
    """Names of the recipes, with the table row each is for."""
    from seqjepa.recipes import describe_recipes

    for name, purpose in describe_recipes().items():
        typer.echo(f"{name:24}{purpose}")


@recipes_app.command("cat")
def recipes_cat_command(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """A recipe with every setting spelled out. Save it, change it, pass its path to `seqjepa train --recipe`.

    Example:  seqjepa recipes cat 3die-rot-M3 > mine.toml
    """
    from seqjepa.recipes import load_recipe, text, to_toml

    comment = [line for line in text(name).splitlines(keepends=True) if line.startswith("#")]
    typer.echo("".join(comment) + "\n" + to_toml(load_recipe(name)), nl=False)


@seqjepa_app.command("doctor")
def doctor_command(
    folder: Annotated[Path, typer.Option(help="Where shards or runs are going to live.")] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Check Python, torch, GPU, OpenCV's system libraries, disk and /dev/shm; say what to do.

    Example:  seqjepa doctor --folder /data
    """
    from dataclasses import asdict

    from seqjepa.doctor import examine

    findings = examine(folder)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    for finding in [] if as_json else findings:
        typer.echo(f"{finding.status:5} {finding.name:13} {finding.found}")
        if finding.advice:
            typer.echo(f"{'':19} → {finding.advice}")
    raise typer.Exit(1 if any(finding.status == "fail" for finding in findings) else 0)


if __name__ == "__main__":
    seqjepa_app()
