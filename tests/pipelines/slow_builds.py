"""Builds of a folder of images that take their time: what tests start, kill and start again (fork_server.py)."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import cli
from pipelines.build import images
from pipelines.sources import open_source
from shards.errors import SeqJepaError

SECONDS_AN_IMAGE, OF_WORK = 0.02, 0.2
_make = images.to_sample


def _slowly(item, job, seconds=SECONDS_AN_IMAGE):
    time.sleep(seconds)
    return _make(item, job)


def build(source: str, out: str) -> None:
    """As the command, which prints one line of what goes wrong."""
    images.to_sample = _slowly
    try:
        images.shard_images(open_source("folder", source), Path(out), samples_per_shard=2, workers=0)
    except SeqJepaError as error:
        sys.exit(f"error: {error}")


def work(place: str, *more: str) -> None:
    """`seqjepa-data build work`."""
    images.to_sample = partial(_slowly, seconds=OF_WORK)
    sys.argv = ["seqjepa-data", "build", "work", place, *more]
    cli.seqjepa_data_app()
