"""Sample keys, made of the names of files and sequences: letters, digits, "_" and "-", at most 80 of them.

What a key cannot hold is spelled "-" and told apart by a hash of the name; so are names that would share a key.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from shards.errors import FormatError

KEY_LENGTH = 80
DIGEST_LENGTH = 12
SUFFIX, PLAIN = re.compile(r"\.[^./]*$"), re.compile(r"[A-Za-z0-9_/-]+")
CHUNK_LENGTH = 12  # room for the number of a chunk, behind a sequence's key


def unique_keys(places: Sequence[str]) -> list[str]:
    """A key for each place, a path with "/" and a suffix: "n01/images/7.JPEG" → "n01_images_7".

    Folders and name joined by "_", without the suffix. "a/b_c.jpg" and "a_b/c.png" would share a key, and get hashes.
    FormatError: two share one still.
    """
    plain = [_plain_key(place) for place in places]
    counts = Counter(plain)
    keys = [key if counts[key] == 1 else marked_key(key, place) for key, place in zip(plain, places, strict=True)]
    first: dict[str, str] = {}
    for key, place in zip(keys, places, strict=True):
        if first.setdefault(key, place) is not place:
            raise FormatError(f"{first[key]} and {place} would both have the key {key!r}; rename one of them")
    return keys


def file_keys(paths: Sequence[str]) -> list[str]:
    """Keys from file names ("val/n01/x_1.JPEG" → "x_1") if all names differ, else from the whole paths ("n01_x_1").

    `paths` lie below one split. ImageNet's names differ, those of ImageNet-Sketch and ImageNet-R begin anew in every
    class. FormatError as for unique_keys.
    """
    names = [path.rpartition("/")[2] for path in paths]
    return unique_keys(names if len(set(names)) == len(names) else paths)


def sequence_keys(names: Sequence[str]) -> list[str]:
    """A key for each of different names, with room for the number of a chunk: "scene a/1" → "scene-a-1-…"."""
    longest = KEY_LENGTH - CHUNK_LENGTH
    plain = [re.sub(r"[^A-Za-z0-9_-]", "-", name)[:longest] for name in names]
    counts = Counter(plain)
    return [
        key if key and key == name and counts[key] == 1 else marked_key(key, name, longest)
        for key, name in zip(plain, names, strict=True)
    ]


def sample_key(synset: str, name: str) -> str:
    """ "02691156_dc8d9003" for an object of 3DIEBench's layout."""
    if re.fullmatch(r"[A-Za-z0-9-]+", synset) and re.fullmatch(r"[A-Za-z0-9_-]+", name):
        key = f"{synset}_{name}"
        if len(key) <= KEY_LENGTH:
            return key
    return marked_key(re.sub(r"[^A-Za-z0-9-]", "-", f"{synset}-{name}"), f"{synset}/{name}")


def marked_key(key: str, name: str, longest: int = KEY_LENGTH) -> str:
    """As much of the key as there is room for, and a hash of the name that it stands for."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:DIGEST_LENGTH]
    return f"{key[: longest - DIGEST_LENGTH - 1]}-{digest}"


def _plain_key(place: str) -> str:
    stem = SUFFIX.sub("", place)
    if PLAIN.fullmatch(stem) and len(stem) <= KEY_LENGTH:
        return stem.replace("/", "_")
    return marked_key(re.sub(r"[^A-Za-z0-9_-]", "-", stem.replace("/", "_")), place)
