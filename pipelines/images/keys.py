"""Sample keys from places in a source: "train/n01/images/7.JPEG" → "n01_images_7"."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

KEY_LENGTH = 80
DIGEST_LENGTH = 12


def unique_keys(places: Sequence[str]) -> list[str]:
    """One key for each place (a path with "/" and a suffix, different from all others).

    Folders and name joined by "_", without the suffix. What a key cannot hold is spelled "-" and told apart by a hash
    of the place; so are places that would share a key ("a/b_c.jpg" and "a_b/c.png").
    """
    keys = [_plain(place) for place in places]
    counts = Counter(keys)
    return [key if counts[key] == 1 else _marked(key, place) for key, place in zip(keys, places, strict=True)]


def _plain(place: str) -> str:
    stem = re.sub(r"\.[^./]*$", "", place)
    if re.fullmatch(r"[A-Za-z0-9_/-]+", stem) and len(stem) <= KEY_LENGTH:
        return stem.replace("/", "_")
    return _marked(re.sub(r"[^A-Za-z0-9_-]", "-", stem.replace("/", "_")), place)


def _marked(key: str, place: str) -> str:
    digest = hashlib.sha256(place.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{key[: KEY_LENGTH - DIGEST_LENGTH - 1]}-{digest}"
