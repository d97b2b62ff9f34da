"""A data set: `seqjepa-data shard weather`. Nothing here imports torch, so that worker processes start at once."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.build.images import shard_images
from pipelines.sources.file_source import Arrangement, FileSource
from pipelines.sources.files import FileList
from shards.console import AsJson, Out, Workers, show_contents


class WeatherSource(FileSource):
    """sun_cam1_0007.png: class sun; the second camera is for validation."""

    name = "weather"

    def arrange(self, files: FileList) -> Arrangement:
        names = [entry.name for entry in files.images]
        splits = ["val" if "_cam2_" in name else "train" for name in names]
        return Arrangement(splits, [name.split("_")[0] for name in names], names)


def shard_weather(
    source: Annotated[Path, typer.Option(help="Folder of pictures named like sun_cam1_0007.png.")],
    out: Out,
    size: Annotated[int, typer.Option(min=8, max=1024, help="Pixels of a side.")] = 32,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Pictures of a weather station → `image` shards.

    Example:  seqjepa-data shard weather --source weather/ --out shards/weather
    """
    shard_images(WeatherSource(source), out, size=size, workers=workers)
    show_contents(out, as_json)
