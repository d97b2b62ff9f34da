"""The contents of a set in words, for a terminal."""

from __future__ import annotations

from typing import Any


def human_bytes(count: float) -> str:
    """1234567 → "1.2 MB"; powers of 1000, as disks are sold and `df -H` counts."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def summarise(contents: dict[str, Any]) -> str:
    """describe()'s result as lines: what it is, the splits, the parameters, where it came from."""
    size = f"{contents['width']}×{contents['height']} {contents['encoding']}"
    quality = f", PSNR {contents['psnr_db']:.1f} dB" if "psnr_db" in contents else ""
    params = ", ".join(f"{p['name']} [{p['unit']}]" for p in contents["params"])
    mean, std = (" ".join(f"{x:.4f}" for x in contents["normalisation"][key]) for key in ("mean", "std"))
    lines = [
        f"{contents['path']}: {contents['name']}, {contents['kind']} shards, format {contents['format_version']}",
        f"  {contents['samples']} samples, {contents['classes']} classes, {human_bytes(contents['bytes_total'])}",
        f"  views   {size}{quality}",
        f"  params  {params}",
        f"  pixels  mean {mean}, std {std}",
        *(_split_line(name, split) for name, split in contents["splits"].items()),
        *(f"  {key}: {_short(value)}" for key, value in contents["provenance"].items()),
    ]
    return "\n".join(lines)


def _split_line(name: str, split: dict[str, Any]) -> str:
    low, high = split["views_per_sample"]["min"], split["views_per_sample"]["max"]
    views = f"{low}" if low == high else f"{low}–{high}"
    return (
        f"  {name:7} {split['samples']} samples × {views} views in {split['shards']} shards, "
        f"{split['classes_present']} classes, {human_bytes(split['bytes'])}, {split['bytes_per_view']:.0f} B a view"
    )


def _short(value: object, limit: int = 140) -> str:
    text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
