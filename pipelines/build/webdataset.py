"""webdataset tars → `image` shards, or `views` shards where samples hold, or make, sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.build.images import shard_images
from pipelines.build.options import BuildOptions, look_first
from pipelines.build.views import shard_views
from pipelines.sources.table import TableSource
from pipelines.sources.webdataset import WebdatasetImages
from pipelines.sources.webdataset.options import NAME, TarOptions
from pipelines.sources.webdataset.sequences import SequenceOptions
from pipelines.sources.webdataset.spool import Spool
from pipelines.sources.webdataset.table import Meaning, tar_table, wants_views
from shards.building.store_build import made_in
from shards.schema import DatasetInfo

IMAGES, SEQUENCES = 1024, 256  # in a shard


def shard_webdataset(
    asked: TarOptions,
    how: SequenceOptions,
    out: Path,
    *,
    meaning: Meaning | None = None,
    spool: Path | None = None,
    views_per_sample: int | None = None,
    overwrite: bool = False,
    samples_per_shard: int | None = None,
    **options: Any,
) -> DatasetInfo:
    """Write the set. `meaning`: units and action of views. `spool`: where streams are copied to; None: beside `out`.

    Other options as shard_images.

    Errors as shard_images; FailureError also for a stream that breaks off. Copies stay, and the same call goes on.
    """
    copies = Spool(spool or Path(f"{made_in(out).resolve()}.spool"))
    build = {name: options[name] for name in ("size", "fit", "encoding", "jpeg_quality", "limit") if name in options}
    request = BuildOptions(**build).to_json()
    del request["samples_per_shard"]  # whose default depends on what is there
    look_first(out, request, overwrite)  # before anything is fetched
    options["overwrite"] = overwrite
    try:
        meaning = meaning or Meaning()
        if meaning.asked or wants_views(asked, how, copies):
            table = tar_table(asked, how, copies, meaning)
            given = {**asked.to_json(), **how.to_json(), **meaning.to_json()}
            source = TableSource(asked.path, table, name=NAME, options=given, views_per_sample=views_per_sample)
            options["context"] = 3 if asked.own is None else None  # of a set of ours nothing is asked again
            info = shard_views(source, out, samples_per_shard=samples_per_shard or SEQUENCES, **options)
        else:
            images = WebdatasetImages(asked, copies)
            info = shard_images(images, out, samples_per_shard=samples_per_shard or IMAGES, **options)
        copies.remove()
        return info
    finally:
        copies.release()
