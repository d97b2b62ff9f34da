"""What a worker process does: read one image of a source. Imports no torch."""

from __future__ import annotations

import numpy as np

from pipelines.sources import ImageRecord, ImageSource
from shards.machine.environment import pass_environment_on


def load(record: ImageRecord, source: ImageSource) -> tuple[np.ndarray | str, str]:
    """uint8 [H, W, 3] RGB; or, for an image that cannot be read, its name and what is wrong with it. And its digest."""
    digest = source.digest(record)
    try:
        return source.read(record), digest
    except (ValueError, OSError) as error:
        pass_environment_on(error)
        return f"{record.name}: {error}", digest
