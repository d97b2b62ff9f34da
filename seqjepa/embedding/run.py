"""embed_run: features of shards or images, part by part, then joined in one file."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from seqjepa.data.one_pass import decoding_threads
from seqjepa.embedding import formats
from seqjepa.embedding.formats import Embedded, Output
from seqjepa.embedding.inputs import Contexts, Source
from seqjepa.embedding.parts import Joined, Part, Parts, parts_of
from seqjepa.embedding.request import (
    Asked,
    Opened,
    check_asked,
    digest_of,
    finished,
    identity_of,
    open_asked,
    open_sources,
    whole_size,
)
from seqjepa.evaluate.run import state_sha256
from seqjepa.model import Model, load
from shards.engines.ray_engine import RayCluster
from shards.engines.steps import Step
from shards.errors import UsageError

__all__ = ["Asked", "check_embedding", "embed_run"]

PART_ROWS = 16_384
"""At most, of a part: 32 MiB of a ResNet-18's features."""
MOST_NAMED = 1000
"""Broken files that are noted by name."""


def embed_run(
    run: str | Path,
    out: Path,
    asked: Asked,
    *,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
    task: Step | None = None,
    cluster: RayCluster | None = None,
) -> dict[str, Any]:
    """Write z of every view or image to `out`, and z_AGG of sequences where there are any; → what is noted with it.

    A killed call goes on where it was, in OUT.parts; the file is the same. One that has finished gives its facts again.

    task     fill this task's share of the parts, and end: → {"task", "tasks", "parts", "rows"}. Whoever finds all parts
             there and no other task at work joins them, as a call without `task` does
    cluster  its nodes fill the parts, one actor a GPU, or on CPUs a core; `device` is theirs, auto or a kind

    Raises UsageError for what does not fit or is not ours, DamageError for a stored view that does not decode. Image
    files that are broken are left out, and named under "broken".
    """
    check_asked(out, asked)
    of_members = cluster.device(device) if cluster else ""
    opened = open_asked(load(run, "cpu" if cluster else device), asked, out)
    identity = identity_of(opened, asked, of_members or opened.model.device.type)
    folder = out.with_name(f"{out.name}.parts")
    if found := finished(out, [identity], overwrite):
        if folder.exists():  # a call was killed as it removed them
            with suppress(UsageError):  # or they are of another
                Parts(folder, identity, overwrite=False).remove()
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, of sizes that are checked and of odd palettes
        parts = Parts(folder, identity, overwrite, task.task if task else None)
        try:
            if not overwrite and (found := finished(out, [identity], overwrite)):  # by another, since we looked
                if task is None or parts.take_all():
                    parts.remove()
                return found
            work = _Work(opened.model, parts, asked.batch_size, progress)
            if task:
                done = work.share(opened.sources, task)
                if not (parts.take_all() and not work.missing(opened.sources)):
                    return done
            elif cluster:
                member = partial(open_member, run, asked, of_members, parts.folder, identity)
                work.fill_over_ray(opened.sources, cluster, member, gpus=int(of_members == "cuda"))
            return _embedded(work, out, opened, {**identity, "without_z_agg": opened.why_not})
        finally:
            parts.release()


def check_embedding(run: str | Path, out: Path, asked: Asked, overwrite: bool) -> None:
    """Before others are to do it: what embed_run would refuse. UsageError also where it is finished."""
    check_asked(out, asked)
    opened = open_asked(load(run, "cpu"), asked, out)
    if finished(out, [identity_of(opened, asked, device) for device in ("cpu", "cuda")], overwrite):
        raise UsageError(f"{out} is finished; there is nothing for an array to do")


def open_member(
    run: str | Path, asked: Asked, device: str, folder: Path, identity: dict[str, Any]
) -> Callable[[Part], int]:
    """On a node: what fills a part in `folder`, and → how many rows. UsageError: other input than the command sees."""
    model = load(run, device)
    sources, _ = open_sources(model, asked)
    seen = {"model_sha256": state_sha256(model.method), "input": [[one.split, one.fingerprint] for one in sources]}
    if differ := [name for name, value in seen.items() if value != identity[name]]:
        raise UsageError(
            f"node {socket.gethostname()} sees another {differ[0].partition('_')[0]} than the command does; give "
            "paths of a disk that all nodes share"
        )
    work = _Work(model, Parts.of_others(folder), asked.batch_size, progress=False)
    width = work.width()

    def fill(job: Part) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work.fill(sources[job.source], job, width)
        return len(job.rows)

    return fill


def _embedded(work: _Work, out: Path, opened: Opened, known: dict[str, Any]) -> dict[str, Any]:
    """Fill all parts and join them. known: the identity, and why there is no z_AGG."""
    width, done, offset, contexts = work.width(), [], 0, opened.contexts
    for number, source in enumerate(opened.sources):
        done.append(work.encode(number, source, width, offset))
        offset += len(done[-1].kept)
    done = [work.aggregate(i, one, contexts[i]) if contexts else one for i, one in enumerate(done)]
    facts = _facts(work, known, done, width)
    formats.write(out, work.parts.scratch(out.suffix[1:]), Output(facts, known["dtype"], done))
    work.parts.remove()
    return facts


class _Work:
    """Fills the parts. broken: [path, what is wrong] of image files that were left out."""

    def __init__(self, model: Model, parts: Parts, batch_size: int, progress: bool) -> None:
        self.model, self.parts, self.batch_size, self.progress = model, parts, batch_size, progress
        self.length = max(1, PART_ROWS // batch_size) * batch_size
        self.broken: list[list[str]] = []

    def width(self) -> int:
        """D, numbers of z."""
        return self.model.embed(np.zeros((*whole_size(self.model), 3), np.uint8)).shape[-1]

    def jobs(self, sources: Sequence[Source]) -> list[Part]:
        """All parts of z."""
        return [job for number, one in enumerate(sources) for job in parts_of("z", number, len(one), self.length)]

    def missing(self, sources: Sequence[Source]) -> list[Part]:
        width = self.width()
        return [job for job in self.jobs(sources) if not self.parts.has(job.name, len(job.rows), width)]

    def fill(self, source: Source, job: Part, width: int, bar: tqdm | None = None) -> None:
        """Encode the rows of a part, unless it is there."""
        bar = bar if bar is not None else tqdm(disable=True)
        if self.parts.filled(job.name, len(job.rows), width, partial(self._encoded, source, job.rows, width, bar)):
            bar.update(len(job.rows))

    def share(self, sources: Sequence[Source], task: Step) -> dict[str, Any]:
        """Fill the parts of one task; → as embed_run says."""
        own = self.jobs(sources)[task.task :: task.tasks]
        rows, width = sum(len(job.rows) for job in own), self.width()
        with self._bar(f"embed, task {task.task} of {task.tasks}", rows, "image") as bar:
            for job in own:
                self.fill(sources[job.source], job, width, bar)
        return {"task": task.task, "tasks": task.tasks, "parts": len(own), "rows": rows}

    def fill_over_ray(
        self, sources: Sequence[Source], cluster: RayCluster, member: Callable[[], Callable[[Part], int]], gpus: int
    ) -> None:
        jobs, missing = self.jobs(sources), self.missing(sources)
        rows, todo = (sum(len(job.rows) for job in some) for some in (jobs, missing))
        with self._bar("embed", rows, "image") as bar:
            bar.update(rows - todo)
            for count in cluster.map_actors(
                member, missing, lambda job: f"part {job.name}", gpus=gpus, most=len(missing)
            ):
                bar.update(count)

    def encode(self, number: int, source: Source, width: int, offset: int) -> Embedded:
        jobs, kept = parts_of("z", number, len(source), self.length), np.ones(len(source), bool)
        with self._bar(f"embed {source.split}".rstrip(), len(source), "image") as bar:
            for job in jobs:
                self.fill(source, job, width, bar)
                for row, why in self.parts.broken(job.name):
                    kept[row] = False
                    self.broken.append([source.keys[row], why])
        return Embedded(source, offset, np.flatnonzero(kept), partial(self._blocks, jobs, kept))

    def _encoded(self, source: Source, rows: range, width: int, bar: tqdm) -> tuple[np.ndarray, list[tuple[int, str]]]:
        z, broken = np.zeros((len(rows), width), np.float32), []
        for chunk in source.read(rows, self.batch_size, decoding_threads()):
            for at, pixels in chunk.groups:
                views = torch.from_numpy(pixels).permute(0, 3, 1, 2)
                z[at - rows.start] = self.model.embed(views).cpu().numpy()
                bar.update(len(at))
            for at, known in chunk.z:
                z[at - rows.start] = known
                bar.update(len(at))
            broken += chunk.broken
            bar.update(len(chunk.broken))
        return z, broken

    def aggregate(self, number: int, one: Embedded, contexts: Contexts) -> Embedded:
        """z_AGG of every sequence, from the z that are on disk."""
        of_z = parts_of("z", number, len(one.source), self.length)
        z = Joined([self.parts.values(job.name) for job in of_z], self.length)
        jobs = parts_of("agg", number, len(contexts), self.length)
        width = self._aggregated(z, contexts, range(1)).shape[-1]
        with self._bar(f"aggregate {one.source.split}", len(contexts), "sequence") as bar:
            for job in jobs:

                def make(rows: range = job.rows) -> tuple[np.ndarray, list[tuple[int, str]]]:
                    steps = range(rows.start, rows.stop, self.batch_size)
                    batches = [range(i, min(i + self.batch_size, rows.stop)) for i in steps]
                    return np.concatenate([self._aggregated(z, contexts, batch) for batch in batches]), []

                self.parts.filled(job.name, len(job.rows), width, make)
                bar.update(len(job.rows))
        return replace(one, contexts=contexts, z_agg=partial(self._blocks, jobs, np.ones(len(contexts), bool)))

    def _aggregated(self, z: Joined, contexts: Contexts, batch: range) -> np.ndarray:
        at = slice(batch.start, batch.stop)
        known = torch.from_numpy(z[contexts.rows[at]])
        return self.model.aggregate(None, contexts.actions(at), z=known).float().cpu().numpy()

    def _blocks(self, jobs: Sequence[Part], kept: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for job in jobs:
            there, values = kept[job.rows.start : job.rows.stop], self.parts.values(job.name)
            yield job.rows.start + np.flatnonzero(there), values if there.all() else values[there]

    def _bar(self, text: str, total: int, unit: str) -> tqdm:
        return tqdm(total=total, desc=text, unit=unit, disable=None if self.progress else True, leave=False)


def _facts(work: _Work, known: dict[str, Any], done: Sequence[Embedded], width: int) -> dict[str, Any]:
    """What is noted with the file. known: as of _embedded."""
    sequences = [len(one.contexts) for one in done if one.contexts is not None]
    about, identity = None, {key: value for key, value in known.items() if key != "without_z_agg"}
    if sequences and done[0].z_agg is not None:
        _, values = next(done[0].z_agg())
        about = {"sequences": sum(sequences), "context": known["context"], "features": values.shape[1]}
    return {
        "kind": formats.KIND,
        "format": 1,
        "identity": digest_of(identity),
        **{key: known[key] for key in ("run", "model_sha256", "pixels", "of", "input", "dtype")},
        "rows": sum(len(one.kept) for one in done),
        "splits": {one.source.split: len(one.kept) for one in done},
        "features": width,
        "z_agg": about,
        "without_z_agg": known["without_z_agg"],
        "whole_images": bool(work.model.data.image_height),
        "broken_files": len(work.broken),
        "broken": work.broken[:MOST_NAMED],
    }
