"""A build of a folder of images that takes its time: what tests start, kill and start again (fork_server.py)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pipelines.build import images
from pipelines.sources import open_source
from shards.errors import SeqJepaError

SECONDS_AN_IMAGE = 0.02
_make = images.to_sample


def _slowly(item, job):
    time.sleep(SECONDS_AN_IMAGE)
    return _make(item, job)


def build(source: str, out: str) -> None:
    """As the command, which prints one line of what goes wrong."""
    images.to_sample = _slowly
    try:
        images.shard_images(open_source("folder", source), Path(out), samples_per_shard=2, workers=0)
    except SeqJepaError as error:
        sys.exit(f"error: {error}")
