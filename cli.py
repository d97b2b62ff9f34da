"""The two commands, `seqjepa` and `seqjepa-data`: what each consists of, and how both begin.

The commands themselves are in `pipelines/commands/` and `seqjepa/commands/`; here are those that only look. Anything
heavy is imported inside a command, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import platform
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

try:
    from pipelines.commands import shard_manifest
    from pipelines.commands.build import build_app
    from pipelines.commands.get import get_command
    from pipelines.commands.push import pull_set_command, push_set_command
    from pipelines.commands.saliency import build_saliency_app, import_saliency_app, score_saliency_command
    from pipelines.commands.shard import shard_app
    from pipelines.commands.shard_lerobot import shard_lerobot_command
    from pipelines.commands.shard_webdataset import shard_webdataset_command
    from pipelines.commands.synth import synth_app
    from seqjepa.commands.bake import bake_command
    from seqjepa.commands.compare import compare_command
    from seqjepa.commands.demo import demo_command
    from seqjepa.commands.embed import embed_command
    from seqjepa.commands.evaluate import evaluate_command
    from seqjepa.commands.export import export_command
    from seqjepa.commands.features import features_command
    from seqjepa.commands.import_released import import_context_ssl_command, import_seq_jepa_command
    from seqjepa.commands.push import pull_command, push_command
    from seqjepa.commands.recipes import recipes_app
    from seqjepa.commands.report import report_command
    from seqjepa.commands.shard_plugins import ShardCommands
    from seqjepa.commands.sweep import sweep_command
    from seqjepa.commands.train import train_command
    from shards.console import APPS, AsJson, ShardFolder, new_app, print_json, show_contents, takes_sets
except ImportError:
    from seqjepa.shadowing import refuse_strangers

    refuse_strangers()
    raise

if TYPE_CHECKING:
    from shards.preview.contact_sheet import Augmentation

seqjepa_app = new_app(
    "Train and evaluate seq-JEPA from shards of views and actions. `seqjepa COMMAND --help` says more of each.",
    "seqjepa demo",
    "seqjepa train --shards shards/photos --out runs/photos",
    "seqjepa evaluate runs/photos --shards shards/photos",
    "seqjepa report runs -o report.html",
)
seqjepa_data_app = new_app(
    "Turn data sets on disk into shards, and look after shards. `seqjepa-data COMMAND --help` says more of each.",
    "seqjepa-data shard manifest --source photos/ --check",
    "seqjepa-data shard manifest --source photos/ --size 96 --out shards/photos",
    "seqjepa-data info shards/photos",
)

seqjepa_data_app.command("get")(get_command)
shard_app.command("manifest")(shard_manifest.shard_manifest_command)
shard_app.command("lerobot")(shard_lerobot_command)
shard_app.command("webdataset")(shard_webdataset_command)
seqjepa_data_app.add_typer(shard_app, name="shard", cls=ShardCommands)
seqjepa_data_app.add_typer(build_app, name="build")
seqjepa_data_app.add_typer(synth_app, name="synth")
seqjepa_data_app.add_typer(build_saliency_app, name="build-saliency")
seqjepa_data_app.add_typer(import_saliency_app, name="import-saliency")
seqjepa_data_app.command("score-saliency")(score_saliency_command)
seqjepa_data_app.command("bake")(takes_sets(bake_command))
seqjepa_data_app.command("push")(push_set_command)
seqjepa_data_app.command("pull")(pull_set_command)
seqjepa_data_app.command("features")(takes_sets(features_command))
seqjepa_app.command("train")(takes_sets(train_command))
seqjepa_app.command("evaluate")(takes_sets(evaluate_command))
seqjepa_app.command("embed")(takes_sets(embed_command))
seqjepa_app.command("report")(report_command)
seqjepa_app.command("export")(export_command)
seqjepa_app.command("import-context-ssl")(import_context_ssl_command)
seqjepa_app.command("import-seq-jepa")(import_seq_jepa_command)
seqjepa_app.command("compare")(takes_sets(compare_command))
seqjepa_app.command("sweep")(takes_sets(sweep_command))
seqjepa_app.command("demo")(demo_command)
seqjepa_app.command("push")(push_command)
seqjepa_app.command("pull")(pull_command)
seqjepa_app.add_typer(recipes_app, name="recipes")
APPS.update({"seqjepa": seqjepa_app, "seqjepa-data": seqjepa_data_app})


def _actions(params: Any, names: list[str], action: Any) -> Any:
    """What a dry run shows: actions between neighbouring views, with the constants of these views."""
    from seqjepa.data.actions import actions_between, with_constants

    return actions_between(params, names, with_constants(action, params[0], names))


shard_manifest.make_actions = _actions


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"seqjepa {version('seqjepa')} (Python {platform.python_version()}, torch {version('torch')})")
        raise typer.Exit


@seqjepa_app.callback()
@seqjepa_data_app.callback()
def set_up_logging(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is going on.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    logging.addLevelName(logging.WARNING, "warning")
    source = " %(name)s" if verbose else ""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format=f"%(levelname)s{source}: %(message)s"
    )


@seqjepa_data_app.command("verify")
@takes_sets
def verify_command(folder: ShardFolder, as_json: AsJson = False) -> None:
    """Check every byte of a set against its checksums. Exit code 1 if anything differs.

    Example:  seqjepa-data verify shards/3die
    """
    from dataclasses import asdict

    from shards.describe import human_bytes
    from shards.stores.store import as_address
    from shards.verify import verify

    report = verify(folder, progress=not as_json)
    if as_json:
        print_json({"ok": report.ok, **asdict(report)})
    else:
        for problem in report.problems:
            typer.echo(problem)
        state = "sound" if report.ok else f"{len(report.problems)} problem(s)"
        typer.echo(f"{as_address(folder) or folder}: {report.shards} shards, {human_bytes(report.bytes)}: {state}")
    raise typer.Exit(0 if report.ok else 1)


@seqjepa_data_app.command("info")
@takes_sets
def info_command(folder: ShardFolder, as_json: AsJson = False) -> None:
    """Show what a set holds. Splits, sizes, parameters with units, provenance.

    Example:  seqjepa-data info shards/3die --json
    """
    show_contents(folder, as_json, origin=True)


@seqjepa_data_app.command("preview")
@takes_sets
def preview_command(
    folder: ShardFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("preview.png"),
    split: Annotated[str | None, typer.Option(help="Split to show. Default: the first.")] = None,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Samples to show.")] = 8,
    views: Annotated[int, typer.Option(min=1, max=64, help="Views, or fixations, to show of each sample.")] = 8,
    patch: Annotated[
        int | None, typer.Option(min=2, help="Sets with saliency maps: side of a patch in pixels. Default: 32.")
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="Sets of images: show augmented views, by equimod, simclr, colour, crop or none.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the choice of samples, of fixations and of augmentations.")
    ] = 0,
) -> None:
    """Draw samples of a set (PNG). Views with their parameters, images with saliency and fixations, or maps.

    \b
    Examples:
      seqjepa-data preview shards/3die --out sheet.png --samples 6
      seqjepa-data preview shards/stl10 --out sheet.png --views 5 --patch 32
      seqjepa-data preview shards/cifar100 --out sheet.png --views 4 --augment equimod
    """
    from shards.errors import ConfigError
    from shards.preview.contact_sheet import contact_sheet
    from shards.reader import ShardSet
    from shards.schema import ImageSpec

    if patch and augment:
        raise ConfigError(f"--patch {patch} is for patches, --augment {augment} for whole images; leave out one")
    info = ShardSet.open(folder).info
    spec = info.spec
    if patch and info.kind != "saliency":
        raise ConfigError(f"--patch {patch} is for sets with saliency maps, and {folder} holds {info.kind} shards")
    shown: dict[str, Any] = {}
    if augment:
        shown = {"augmentation": _augmentation(augment, views, seed)}
    elif isinstance(spec, ImageSpec) and spec.saliency != "none":
        from seqjepa.data.fixations import Fixating, fixations_on

        how = Fixating(patch or min(32, spec.height, spec.width))
        how.check_size(spec.height, spec.width)
        shown = {"fixations": partial(fixations_on, count=views, how=how, seed=seed)}
    split = split or next(iter(info.splits))
    typer.echo(str(contact_sheet(folder, split, out, samples=samples, views=views, seed=seed, **shown)))


def _augmentation(recipe: str, views: int, seed: int) -> Augmentation:
    """What `preview` shows of images: `views` of each, as a run with that seed sees them in its first epoch."""
    from seqjepa.data.actions import AUGMENTATION_FIELDS
    from seqjepa.data.augment.recipes import build_recipe
    from seqjepa.data.views import augmented_on
    from shards.preview.contact_sheet import Augmentation

    make = partial(augmented_on, recipe=build_recipe(recipe), count=views, seed=seed)
    return Augmentation(make, AUGMENTATION_FIELDS)


@seqjepa_app.command("doctor")
def doctor_command(
    folder: Annotated[Path, typer.Option(help="Folder in which shards or runs will be.")] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Check what is installed; say what to do. Python, torch, GPU, OpenCV's system libraries, disk, /dev/shm.

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
