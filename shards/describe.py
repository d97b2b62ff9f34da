"""The contents of a set: as JSON (`seqjepa-data info --json`), in words (`info`), and as its data card README.md.

The card's YAML head lets `datasets.load_dataset(DIR)` find the splits.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import counted
from shards.kinds import kind_of
from shards.layout import Layout
from shards.metadata import CONTROL
from shards.reader import ShardSet
from shards.schema import ActionSpec, DatasetInfo, ViewSpec
from shards.stores.store import as_address


def describe_set(path: str | Path) -> dict[str, Any]:
    """Contents, sizes in bytes and provenance of a finished set, as JSON values. Errors as ShardSet.open.

    What there is besides depends on the kind: `views` counts the distinct views of each split, from its index …
    `bytes_total` includes everything in `_meta/`.
    """
    shards = ShardSet.open(path)
    info, layout = shards.info, Layout(shards.path)
    splits = {name: _describe_split(shards, name) for name in shards.splits}  # indexes are there from now on
    files = [layout.readme, *layout.meta.glob("*")]
    tar_bytes = sum(split.bytes for split in info.splits.values())
    return {
        "path": as_address(path) or str(path),
        "name": info.name,
        "kind": info.kind,
        "format_version": info.format_version,
        "samples": info.samples,
        "classes": len(info.classes),
        **kind_of(info.spec).describe(),
        **(_describe_columns(shards, info.spec) if isinstance(info.spec, ViewSpec) else {}),
        "splits": splits,
        "bytes_total": tar_bytes + sum(file.stat().st_size for file in files if file.is_file()),
        **({"normalisation": info.normalisation} if info.normalisation else {}),
        **({"psnr_db": info.provenance["psnr_db"]} if "psnr_db" in info.provenance else {}),
        "fingerprint": info.fingerprint,
        "provenance": info.provenance,
    }


def _describe_columns(shards: ShardSet, spec: ViewSpec) -> dict[str, Any]:
    """Range of each parameter over the distinct views of all splits; which no declared action is made of."""
    if not spec.params:
        return {}
    ranges = []
    for name in shards.splits:
        split = shards.split(name, tars=False)
        values = split.params[np.arange(spec.views) < split.n_views[:, None]].astype(np.float64)
        ranges.append((values.min(0), values.max(0), values.sum(0), len(values)))
    low, high = np.min([r[0] for r in ranges], 0), np.max([r[1] for r in ranges], 0)
    mean = np.sum([r[2] for r in ranges], 0) / sum(r[3] for r in ranges)
    used = set(spec.actions.columns) if spec.actions else set()
    return {
        "columns": [
            {"name": f.name, "unit": f.unit, "min": low[i].item(), "max": high[i].item(), "mean": mean[i].item()}
            for i, f in enumerate(spec.params)
        ],
        "unused": [f.name for f in spec.params if f.name not in used] if spec.actions else [],
    }


def _describe_split(shards: ShardSet, name: str) -> dict[str, Any]:
    entry, table = shards.info.splits[name], shards.table(name, tars=False)
    return {
        "samples": entry.samples,
        "classes_present": len(set(table.labels.tolist()) - {-1}),
        "shards": len(entry.shards),
        "bytes": entry.bytes,
        **kind_of(shards.info.spec).describe_split(table),
    }


SHOWN_COLUMNS = 6
_EACH = {"bytes_per_view": "a view", "bytes_per_image": "an image", "bytes_per_map": "a map"}


def command_line(verb: str, source: str, options: Mapping[str, Any]) -> str:
    """ "seqjepa-data shard folder --source …". None: not given; True: a flag; a list: one after the other."""
    words = [
        word
        for name, values in options.items()
        for value in (values if isinstance(values, list) else [values])
        if value is not None
        for word in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
    ]
    return shlex.join(["seqjepa-data", verb, source, *words])


def human_bytes(count: float) -> str:
    """1234567 → "1.2 MB"; powers of 1000, as disks are sold and `df -H` counts."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def summarise(contents: dict[str, Any], origin: bool = True) -> str:
    """describe()'s result as lines: what it is, the parameters, the splits, and of which origin."""
    width = max(7, *map(len, contents["splits"]))
    lines = [
        f"{contents['path']}: {contents['name']}, {contents['kind']} shards, format {contents['format_version']}",
        f"  {contents['samples']} samples, {contents['classes']} classes, {human_bytes(contents['bytes_total'])}",
        *_content_lines(contents),
        *(_split_line(name.ljust(width), split) for name, split in contents["splits"].items()),
        *(_origin_lines(contents["provenance"]) if origin else ()),
    ]
    return "\n".join(CONTROL.sub(lambda found: ascii(found[0])[1:-1], line) for line in lines)


def _content_lines(contents: dict[str, Any]) -> Iterator[str]:
    """One line for each thing that the set has, whatever its kind."""
    if "encoding" in contents:
        quality = f", PSNR {contents['psnr_db']:.1f} dB" if "psnr_db" in contents else ""
        runs = f", in runs of {contents['sequence']}" if "sequence" in contents else ""
        name = "views  " if "view_slots" in contents else "images "
        if "features" in contents:
            yield from _feature_lines(contents["features"])
            name = "made of"
        yield f"  {name} {contents['width']}×{contents['height']} {contents['encoding']}{quality}{runs}"
    if "saliency" in contents:
        yield f"  maps    {contents['saliency']}"
    if "columns" in contents:
        yield from column_lines(contents["columns"], contents.get("actions"), contents["unused"])
    if "normalisation" in contents:
        mean, std = (" ".join(f"{x:.4f}" for x in contents["normalisation"][key]) for key in ("mean", "std"))
        yield f"  pixels  mean {mean}, std {std}"


def _feature_lines(features: dict[str, Any]) -> Iterator[str]:
    """What the vectors are, and which encoder made them of pixels that were normalised how."""
    encoder = ", ".join(f"{name} {value}" for name, value in features["encoder"].items() if name != "backbone")
    yield f"  vectors {features['size']} of {features['dtype']}"
    yield f"  encoder {features['encoder']['backbone']}" + (f" ({encoder})" if encoder else "")
    yield f"          weights {features['weights_sha256'][:16]}…"
    mean, std = (" ".join(f"{x:.4f}" for x in features[key]) for key in ("mean", "std"))
    yield f"  pixels  mean {mean}, std {std}"


def column_lines(
    columns: list[dict[str, Any]], actions: list[dict[str, Any]] | None, unused: list[str]
) -> Iterator[str]:
    """Columns of parameters with units and ranges, the terms of the action, and which columns none is made of."""
    for column in columns:
        yield f"  {column['name']:16} [{column['unit']}] {column['min']:g} … {column['max']:g}, mean {column['mean']:g}"
    if actions is not None:
        terms = "; ".join(map(term_in_words, actions)) or "none"
        yield f"  action  {terms}: {counted(ActionSpec.from_json(actions).size, 'number')}"
    if unused:
        vectors = (list(group) for _, group in groupby(unused, key=lambda name: name.rstrip("0123456789")))
        yield f"  no action uses {', '.join(map(named_columns, vectors))}"


def term_in_words(term: dict[str, Any]) -> str:
    """ "difference of x, y (normalise zscore)" of a term's JSON."""
    rest = ", ".join(f"{key} {value}" for key, value in term.items() if key not in ("op", "columns"))
    return f"{term['op']} of {named_columns(term['columns'])}" + (f" ({rest})" if rest else "")


def named_columns(columns: Sequence[str]) -> str:
    return ", ".join(columns) if len(columns) <= SHOWN_COLUMNS else f"{columns[0]} … {columns[-1]}"


def _split_line(name: str, split: dict[str, Any]) -> str:
    views = f" × {_span(split['views_per_sample'])} views" if "views_per_sample" in split else ""
    sizes = f" of {_span(split['widths'])} × {_span(split['heights'])}" if "heights" in split else ""
    each = "".join(f", {size:.0f} B {_EACH[key]}" for key, size in split.items() if key in _EACH)
    return (
        f"  {name} {split['samples']} samples{views}{sizes} in {counted(split['shards'], 'shard')}, "
        f"{split['classes_present']} classes, {human_bytes(split['bytes'])}{each}"
    )


def _span(limits: dict[str, int]) -> str:
    low, high = limits["min"], limits["max"]
    return f"{low}" if low == high else f"{low}–{high}"


_TOLD = ("views", "images", "psnr_db", "versions")  # above, or by --json alone


def _origin_lines(provenance: dict[str, Any]) -> Iterator[str]:
    """The command whole, to be given again; of all else what a person reads: no digests, nothing that is empty."""
    for key, value in provenance.items():
        text = value if key == "command" else _short(_in_words(value))
        if text and key not in _TOLD:
            yield f"  {key}: {text}"


def _in_words(value: object) -> str:
    """ "name photos, images train 60 test 40" of a provenance's JSON."""
    if isinstance(value, dict):
        parts = {key: _in_words(part) for key, part in value.items() if "sha256" not in key}
        return ", ".join(f"{key} {part}" for key, part in parts.items() if part and (part != "0" or key == "seed"))
    return " ".join(map(_in_words, value)) if isinstance(value, list) else str(value)


def _short(text: str, limit: int = 140) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


_SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]


def data_card(info: DatasetInfo) -> str:
    """The whole text, the same for the same info."""
    kind = kind_of(info.spec)
    rows = [f"| {name} | {s.samples:,} | {len(s.shards):,} | {s.bytes:,} |" for name, s in info.splits.items()]
    return _yaml(info) + _CARD.format(
        name=info.name,
        summary=kind.card_summary(info),
        splits="\n".join(["| split | samples | shards | bytes |", "|---|---|---|---|", *rows]),
        members="\n".join(kind.card_members()),
        normalisation=_NORMALISATION.format(**info.normalisation) if info.normalisation else "",
        example=info.spec.suffixes()[0].lstrip("."),
        first=next(iter(info.splits)),
    )


def _yaml(info: DatasetInfo) -> str:
    lines = ["---", f"pretty_name: {json.dumps(info.name)}", "tags:", "- webdataset", "size_categories:"]
    size = next((name for limit, name in _SIZES if info.samples < limit), "n>1M")
    lines += [f"- {size}", "configs:", "- config_name: default", "  data_files:"]
    for split in info.splits:
        lines += [f"  - split: {split}", f'    path: "{split}-*.tar"']
    return "\n".join([*lines, "---", "", ""])


_CARD = """# {name}

{summary}

{splits}

Members of a sample, next to each other in the tar in this order:

{members}

{normalisation}```python
import datasets, webdataset
rows = datasets.load_dataset("THIS_FOLDER", split="{first}")        # rows[0]["{example}"], rows[0]["cls"] …
rows = webdataset.WebDataset("THIS_FOLDER/{first}-000000.tar", shardshuffle=False).decode("rgb8")
```

`_meta/dataset.json` has the schema, the classes, a sha256 of every file and where the set comes from;
`_meta/index-*.parquet` has one row a sample with the position of every member.
"""

_NORMALISATION = """Normalisation, measured on the training split for pixels in [0, 1]: mean {mean}, deviation {std}.

"""
