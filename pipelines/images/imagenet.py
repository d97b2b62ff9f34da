"""ImageNet's folders, or a plain tar of them: train/<wnid>/*.JPEG and val/<wnid>/*.JPEG.

The class is the rank of the WordNet id among all ids of all splits in ascending order, so that training and
validation agree (docs/fidelity.md #57).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from pipelines.images.file_list import SPLIT_FOLDERS, FileList
from pipelines.images.file_source import Arrangement, FileSource
from shards.errors import FormatError

WNID = re.compile(r"n\d{8}")


def imagenet_source(path: Path) -> FileSource:
    return FileSource("imagenet", path, imagenet_rule)


def imagenet_rule(files: FileList) -> Arrangement:
    """Raises FormatError for an image that does not lie in <split>/<wnid>/. Keys are file names: "n01440764_10026"."""
    splits, labels, places = [], [], []
    for entry in files.images:
        parts = PurePosixPath(entry.name).parts
        if len(parts) < 3 or parts[0] not in SPLIT_FOLDERS or not WNID.fullmatch(parts[1]):
            raise FormatError(
                f"{entry.name} does not lie in train/<wnid>/ or val/<wnid>/ (a wnid is n and eight digits); sort the "
                "images into these folders, or use `shard folder`"
            )
        splits.append(SPLIT_FOLDERS[parts[0]])
        labels.append(parts[1])
        places.append(parts[-1])
    return Arrangement(splits, labels, places)
