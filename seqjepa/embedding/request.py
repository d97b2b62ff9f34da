"""What is asked of embed_run: opened, held against each other, and what of it the features follow from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from seqjepa.data.augment.parameters import Scaling, stored_scaling
from seqjepa.embedding import formats
from seqjepa.embedding.inputs import Contexts, Source, contexts_of, open_folder, open_shards
from seqjepa.evaluate.encode import require_encoder
from seqjepa.evaluate.run import state_sha256
from seqjepa.model import Model
from seqjepa.training.checkpoint import LoadedRun
from shards.engines.sbatch import Array, program, write_sbatch
from shards.errors import ConfigError, UsageError
from shards.reader import ShardSet
from shards.stores.cache_room import FOLDER, SIZE


@dataclass(frozen=True)
class Asked:
    """What to embed and how.

    splits      of the shards; none: all            context  M, views of a z_AGG; None: the run's, where there are any
    dtype       of what is written                  batch_size  images that are read and encoded at once
    """

    shards: Path | None = None
    images: Path | None = None
    splits: tuple[str, ...] = ()
    context: int | None = None
    dtype: Literal["float32", "float16"] = "float32"
    batch_size: int = 256


def check_asked(out: Path, asked: Asked) -> None:
    if out.suffix not in formats.SUFFIXES:
        raise UsageError(f"{out} ends in none of {', '.join(formats.SUFFIXES)}; its ending chooses the format")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is not a folder; make it, or choose another --out")
    if (asked.shards is None) == (asked.images is None):
        raise UsageError("give either --shards or --images")
    if asked.images is not None and asked.splits:
        raise UsageError("--split is for --shards; a folder of images has no splits")


@dataclass(frozen=True)
class Opened:
    """contexts: of each source, or none, and why not."""

    model: Model
    sources: list[Source]
    contexts: list[Contexts]
    why_not: str


def open_asked(model: Model, asked: Asked, out: Path) -> Opened:
    sources, scaling = open_sources(model, asked)
    return Opened(model, sources, *_contexts(model, sources, scaling, asked, out))


def open_sources(model: Model, asked: Asked) -> tuple[list[Source], Scaling | None]:
    if asked.images is not None:
        return [open_folder(asked.images, model.size_for)], None
    assert asked.shards is not None
    opened = ShardSet.open(asked.shards)
    require_encoder(LoadedRun(model.config, model.method, model.data), opened)
    return open_shards(opened, asked.splits), stored_scaling(opened.info)


def _contexts(
    model: Model, sources: Sequence[Source], scaling: Scaling | None, asked: Asked, out: Path
) -> tuple[list[Contexts], str]:
    """Of each source, or none and why not. ConfigError where --context asks for what there is not."""
    why_not = "an .npy file has room for z alone" if out.suffix == ".npy" else ""
    try:
        if not why_not:
            views = asked.context or model.config.data.context
            return [contexts_of(model, source, views, scaling) for source in sources], ""
    except ConfigError as error:
        why_not = str(error)
    if asked.context is not None:
        raise ConfigError(f"--context {asked.context}: there is no z_AGG: {why_not}")
    return [], why_not


def identity_of(opened: Opened, asked: Asked, device: str) -> dict[str, Any]:
    """What the features follow from: the same only for the same file."""
    model, contexts = opened.model, opened.contexts
    config, data = model.config, model.data
    return {
        "run": {"name": config.name, "method": config.method, "fidelity": config.fidelity},
        "model_sha256": state_sha256(model.method),
        "config_sha256": digest_of(config.model_dump(mode="json")),
        "pixels": {"mean": [*data.mean], "std": [*data.std], "size": [*whole_size(model)]},
        "input": [[source.split, source.fingerprint] for source in opened.sources],
        "of": "images" if asked.images is not None else "shards",
        "context": int(contexts[0].rows.shape[1]) if contexts else 0,
        "dtype": asked.dtype,
        "batch_size": asked.batch_size,
        "device": device,
    }


def whole_size(model: Model) -> tuple[int, int]:
    """(height, width) of whole images or views, as the run sees them."""
    data = model.data
    return (data.image_height, data.image_width) if data.patch else (data.height, data.width)


def digest_of(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def finished(out: Path, identities: Sequence[dict[str, Any]], overwrite: bool) -> dict[str, Any] | None:
    """What is noted with the file, if it is one of these. UsageError: it is another, and stays without `overwrite`."""
    found, second = formats.read_facts(out), formats.second_is_there(out)  # which refuse what is not ours
    if found is None:
        return None
    if (second or not found["z_agg"]) and found["identity"] in map(digest_of, identities):
        return found
    if not overwrite:
        raise UsageError(f"{out} is of another run, input or options; choose another --out, or use --overwrite")
    return None


MAKER = "seqjepa embed --engine slurm"


def write_embed_script(
    file: Path, run: str, out: Path, asked: Asked, tasks: int, *, device: str = "auto", overwrite: bool = False
) -> None:
    """UsageError: `file` is someone else's, or cannot be named in a script."""
    gpu = "" if device == "cpu" else "--gres=gpu:1 "
    array = Array.of_equals(f"seqjepa embed: {out.name}", "seqjepa-embed", tasks, f"{gpu}--cpus-per-task=8 --mem=16G")
    words = _words(run, out, asked, device, overwrite)
    write_sbatch(file, "--script", MAKER, array, words, Path(f"{out.resolve()}.logs"))


def _words(run: str, out: Path, asked: Asked, device: str, overwrite: bool) -> list[str]:
    """The command of all tasks; paths in it begin in the folder where it was given."""
    given = {
        "--shards": asked.shards,
        "--images": asked.images,
        "--context": asked.context,
        "--dtype": asked.dtype,
        "--batch-size": asked.batch_size,
        "--device": device,
        "--cache": os.environ.get(FOLDER),
        "--cache-size": os.environ.get(SIZE),
        "--out": out,
    }
    words = [program("seqjepa"), "embed", run]
    for option, value in [*given.items(), *(("--split", split) for split in asked.splits)]:
        words += [] if value is None else [option, str(value)]
    return [*words, "--overwrite"] if overwrite else words
