"""The contents of a set in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_EACH = {"bytes_per_view": "a view", "bytes_per_image": "an image", "bytes_per_map": "a map"}


def human_bytes(count: float) -> str:
    """1234567 → "1.2 MB"; powers of 1000, as disks are sold and `df -H` counts."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def summarise(contents: dict[str, Any]) -> str:
    """describe()'s result as lines: what it is, the splits, the parameters, where it came from."""
    lines = [
        f"{contents['path']}: {contents['name']}, {contents['kind']} shards, format {contents['format_version']}",
        f"  {contents['samples']} samples, {contents['classes']} classes, {human_bytes(contents['bytes_total'])}",
        *_content_lines(contents),
        *(_split_line(name, split) for name, split in contents["splits"].items()),
        *(f"  {key}: {_short(value)}" for key, value in contents["provenance"].items()),
    ]
    return "\n".join(lines)


def _content_lines(contents: dict[str, Any]) -> Iterator[str]:
    """One line for each thing that the set has, whatever its kind."""
    if "encoding" in contents:
        quality = f", PSNR {contents['psnr_db']:.1f} dB" if "psnr_db" in contents else ""
        runs = f", in runs of {contents['sequence']}" if "sequence" in contents else ""
        name = "views  " if "view_slots" in contents else "images "
        yield f"  {name} {contents['width']}×{contents['height']} {contents['encoding']}{quality}{runs}"
    if "saliency" in contents:
        yield f"  maps    {contents['saliency']}"
    if "params" in contents:
        params = ", ".join(f"{p['name']} [{p['unit']}]" for p in contents["params"])
        yield f"  params  {params}"
    if "normalisation" in contents:
        mean, std = (" ".join(f"{x:.4f}" for x in contents["normalisation"][key]) for key in ("mean", "std"))
        yield f"  pixels  mean {mean}, std {std}"


def _split_line(name: str, split: dict[str, Any]) -> str:
    views = f" × {_span(split['views_per_sample'])} views" if "views_per_sample" in split else ""
    sizes = f" of {_span(split['widths'])} × {_span(split['heights'])}" if "heights" in split else ""
    each = "".join(f", {size:.0f} B {_EACH[key]}" for key, size in split.items() if key in _EACH)
    return (
        f"  {name:7} {split['samples']} samples{views}{sizes} in {split['shards']} shards, "
        f"{split['classes_present']} classes, {human_bytes(split['bytes'])}{each}"
    )


def _span(limits: dict[str, int]) -> str:
    low, high = limits["min"], limits["max"]
    return f"{low}" if low == high else f"{low}–{high}"


def _short(value: object, limit: int = 140) -> str:
    text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
