"""Sample keys from places below a split: "n01/images/7.JPEG" → "n01_images_7"."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from shards.errors import FormatError

KEY_LENGTH = 80
DIGEST_LENGTH = 12


def file_keys(paths: Sequence[str]) -> list[str]:
    """Keys from file names ("val/n01/x_1.JPEG" → "x_1") if all names differ, else from the whole paths ("n01_x_1").

    `paths` lie below one split. ImageNet's names differ, those of ImageNet-Sketch and ImageNet-R begin anew in every
    class. FormatError as for unique_keys.
    """
    names = [path.rpartition("/")[2] for path in paths]
    return unique_keys(names if len(set(names)) == len(names) else paths)


def unique_keys(places: Sequence[str]) -> list[str]:
    """One key for each place: a path with "/" and a suffix, different from all others.

    Folders and name joined by "_", without the suffix. What a key cannot hold is spelled "-" and told apart by a hash
    of the place; so are places that would share a key ("a/b_c.jpg" and "a_b/c.png"). FormatError: two share one still.
    """
    plain = [_plain(place) for place in places]
    counts = Counter(plain)
    keys = [key if counts[key] == 1 else _marked(key, place) for key, place in zip(plain, places, strict=True)]
    first: dict[str, str] = {}
    for key, place in zip(keys, places, strict=True):
        if first.setdefault(key, place) is not place:
            raise FormatError(f"{first[key]} and {place} would both have the key {key!r}; rename one of them")
    return keys


def _plain(place: str) -> str:
    stem = re.sub(r"\.[^./]*$", "", place)
    if re.fullmatch(r"[A-Za-z0-9_/-]+", stem) and len(stem) <= KEY_LENGTH:
        return stem.replace("/", "_")
    return _marked(re.sub(r"[^A-Za-z0-9_-]", "-", stem.replace("/", "_")), place)


def _marked(key: str, place: str) -> str:
    digest = hashlib.sha256(place.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{key[: KEY_LENGTH - DIGEST_LENGTH - 1]}-{digest}"
