"""What has to be known of a source before its first shard: objects, image size, JPEG setting.

For a tar that takes one pass over the whole file, so the result is kept beside the build: a resumed build reads it
back if the file still has the size and time that it had.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.encode import JpegSetting, choose_setting, decode_jpeg, resize
from pipelines.jpeg import jpeg_size
from pipelines.sources import Content, ListedObject, Listing, Source, read_content
from shards.errors import FormatError
from shards.files import disk_full_named, write_atomic
from shards.json_fields import strict_json
from shards.layout import Layout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """`source_size` is (height, width) in pixels; `setting` is None for raw pixels."""

    listing: Listing
    source_size: tuple[int, int]
    setting: JpegSetting | None


def survey(source: Source, size: int, encoding: str, jpeg_quality: str) -> Survey:
    """List the source and decide. Raises FormatError for a wrong layout or images of many sizes."""
    listing = source.list()
    sample = dict(_readable(listing.sample))
    sizes = {name: jpeg_size(data) for name, data in sample.items()}
    source_size = _common_size(sizes)
    if encoding == "raw":
        return Survey(listing, source_size, None)
    if jpeg_quality != "auto":
        return Survey(listing, source_size, JpegSetting.parse(jpeg_quality))
    pixels = []
    for name, data in sample.items():
        if sizes[name] == source_size:
            with contextlib.suppress(ValueError):
                pixels.append(resize(decode_jpeg(data), size))
    if not pixels:
        raise FormatError(f"{source.path}: not one of {len(sizes)} images that were tried can be decoded")
    return Survey(listing, source_size, choose_setting(pixels))


def _readable(sample: Sequence[tuple[str, Content]]) -> list[tuple[str, bytes]]:
    """What is damaged is passed over here; the workers will name it."""
    found = []
    for name, content in sample:
        with contextlib.suppress(ValueError):
            data = read_content(content)
            jpeg_size(data)
            found.append((name, data))
    return found


def _common_size(sizes: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """The size that most images have. Raises FormatError if not more than half have the same."""
    counts = Counter(sizes.values()).most_common()
    if not counts:
        raise FormatError("no image that was tried is a JPEG; image_<k>.jpg files have to be")
    if 2 * counts[0][1] <= len(sizes):
        found = ", ".join(f"{width}×{height}" for (height, width), _ in counts[:5])
        raise FormatError(f"images are of mixed size ({found}); all images of a set need the same")
    return counts[0][0]


def save_survey(layout: Layout, found: Survey, request: dict) -> None:
    """Keep `found` in a build's folder, for the same request and source."""
    record = {
        "request": request,
        "identity": found.listing.identity,
        "source_size": found.source_size,
        "setting": str(found.setting) if found.setting else "",
        "objects": [[o.synset, o.name, _to_ranges(o.view_ids), o.orphans] for o in found.listing.objects],
    }
    with disk_full_named(layout.root, lambda: "free some and run the same command again"):
        write_atomic(_path(layout), json.dumps(record).encode(), layout.tmp)


def load_survey(layout: Layout, request: dict) -> Survey | None:
    """What save_survey kept for the same request; None if there is nothing of use."""
    try:
        record = strict_json(_path(layout).read_bytes())
        if record["request"] != request:
            return None
        shared: dict[str, tuple[int, ...]] = {}
        objects = [
            ListedObject(synset, name, shared.setdefault(ids, _from_ranges(ids)), tuple(orphans))
            for synset, name, ids, orphans in record["objects"]
        ]
        setting = JpegSetting.parse(record["setting"]) if record["setting"] else None
        height, width = record["source_size"]
        return Survey(Listing(objects, record["identity"]), (height, width), setting)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.info("the saved listing is of no use (%s); listing again", error)
        return None


def _path(layout: Layout) -> Path:
    return layout.parts / "survey.json"


def _to_ranges(ids: Sequence[int]) -> str:
    """(0, 1, 2, 5) → "0-2,5-5"."""
    ranges: list[list[int]] = []
    for k in ids:
        if ranges and ranges[-1][1] == k - 1:
            ranges[-1][1] = k
        else:
            ranges.append([k, k])
    return ",".join(f"{first}-{last}" for first, last in ranges)


def _from_ranges(text: str) -> tuple[int, ...]:
    pairs = (part.split("-") for part in text.split(",") if part)
    return tuple(k for first, last in pairs for k in range(int(first), int(last) + 1))
