"""The rows of a comparison as a table, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADS = ("method", "top-1 %", "top-1 % of z", "R² rel", "R² indiv", "seconds", "parameters, M", "MACs a step, G")
UNTRAINED = "(untrained)"


def format_table(comparison: Mapping[str, Any]) -> str:
    """Columns with aligned digits, and what was compared under them."""
    lines = [HEADS, *cells(comparison)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADS))]
    drawn = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    return "\n".join([*drawn, "", *notes(comparison)])


def format_markdown(comparison: Mapping[str, Any]) -> str:
    """A GitHub table, its notes as a list."""
    rule = ["---", *["--:"] * (len(HEADS) - 1)]
    rows = ["| " + " | ".join(line) + " |" for line in (HEADS, rule, *cells(comparison))]
    return "\n".join([*rows, "", *(f"* {note}" for note in notes(comparison))])


def cells(comparison: Mapping[str, Any]) -> list[list[str]]:
    """One line a method, then the initial weights."""
    lines = [_line(row["method"], row) for row in comparison["rows"]]
    return [*lines, _line(UNTRAINED, comparison["untrained"])]


def notes(comparison: Mapping[str, Any]) -> list[str]:
    """What holds for all numbers, and what the first column is where that is not one view's z."""
    s = comparison["settings"]
    several = f", mean ± standard deviation of seeds {', '.join(map(str, s['seeds']))}" if len(s["seeds"]) > 1 else ""
    said = [
        f"{s['dataset']} at {s['resolution']} px, {s['train_samples']} training and {s['val_samples']} validation "
        f"samples; {s['steps']} steps of {s['views_per_step']} views, scale {s['scale']}, {s['device']}{several}"
    ]
    said += [
        f"measured otherwise than the first run, so not comparable: {name} ({', '.join(parts)}); evaluate it again"
        for name, parts in s.get("differently_measured", {}).items()
    ]
    rows = [*comparison["rows"], {"method": UNTRAINED, **comparison["untrained"]}]
    others = [f"{row['method']} {row['top1_of']}" for row in rows if row["top1_of"] != "z of one view"]
    return said + ([f"top-1: z of one view, but {', '.join(others)}"] if others else [])


def _line(name: str, row: Mapping[str, Any]) -> list[str]:
    spread = row.get("std", {})
    return [
        name,
        *(_cell(row.get(key), spread.get(key), 100, 1) for key in ("top1", "top1_z")),
        *(_cell(row.get(key), spread.get(key), 1, 3) for key in ("r2_rel", "r2_indiv")),
        _cell(row.get("seconds"), None, 1, 0),
        _cell(row.get("parameters"), None, 1e-6, 2),
        _cell(row.get("macs"), None, 1e-9, 1),
    ]


def _cell(value: float | None, spread: float | None, factor: float, digits: int) -> str:
    if value is None:
        return "–"
    shown = f"{factor * value:.{digits}f}"
    return shown if spread is None else f"{shown} ± {factor * spread:.{digits}f}"


def short(row: Mapping[str, Any]) -> str:
    """A row in one line, for progress."""
    line: Sequence[str] = _line(row["method"], row)
    return f"{line[0]}: top-1 {line[1]} %, R² relative {line[3]}, individual {line[4]}, {line[5]} s of training"
