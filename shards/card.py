"""The data card: README.md of a set. Its YAML head lets `datasets.load_dataset(DIR)` find the splits."""

from __future__ import annotations

import json

from shards.schema import DatasetInfo

_SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]


def data_card(info: DatasetInfo) -> str:
    """The whole text, the same for the same info."""
    return _yaml(info) + _CARD.format(
        name=info.name,
        summary=_summary(info),
        splits=_split_table(info),
        params=_param_table(info),
        members=_member_table(info),
        example=info.spec.suffixes()[0].lstrip("."),
        first=next(iter(info.splits)),
        mean=info.normalisation["mean"],
        std=info.normalisation["std"],
    )


def _yaml(info: DatasetInfo) -> str:
    lines = ["---", f"pretty_name: {json.dumps(info.name)}", "tags:", "- webdataset", "size_categories:"]
    lines += [f"- {_size_category(info.samples)}", "configs:", "- config_name: default", "  data_files:"]
    for split in info.splits:
        lines += [f"  - split: {split}", f'    path: "{split}-*.tar"']
    return "\n".join([*lines, "---", "", ""])


def _size_category(samples: int) -> str:
    return next((name for limit, name in _SIZES if samples < limit), "n>1M")


def _summary(info: DatasetInfo) -> str:
    spec = info.spec
    pixels = "baseline JPEG" if spec.encoding == "jpeg" else "raw uint8 (.npy)"
    classes = f"{len(info.classes)} classes" if info.classes else "no classes"
    views = f"up to {spec.views} views" if spec.views > 1 else "one view"
    return f"{info.samples:,} samples of {views}, {spec.height}×{spec.width} RGB pixels as {pixels}; {classes}."


def _split_table(info: DatasetInfo) -> str:
    rows = [f"| {name} | {s.samples:,} | {len(s.shards):,} | {s.bytes:,} |" for name, s in info.splits.items()]
    return "\n".join(["| split | samples | shards | bytes |", "|---|---|---|---|", *rows])


def _param_table(info: DatasetInfo) -> str:
    rows = [f"| {column} | {f.name} | {f.unit} |" for column, f in enumerate(info.spec.params)]
    return "\n".join(["| column | parameter | unit |", "|---|---|---|", *rows])


def _member_table(info: DatasetInfo) -> str:
    spec, (*views, params, label, record) = info.spec, info.spec.suffixes()
    span = f"`KEY{views[0]}` … `KEY{views[-1]}`" if spec.views > 1 else f"`KEY{views[0]}`"
    return "\n".join(
        [
            f"* {span}: the views, uint8 [{spec.height}, {spec.width}, 3], (row, col, RGB)",
            f"* `KEY{params}`: float32 [{spec.views}, {len(spec.params)}], one row a view, columns as below",
            f"* `KEY{label}`: the class as an ASCII number, rank in `classes` of `_meta/dataset.json`, -1 for none",
            f"* `KEY{record}`: `views`, how many views are distinct (the rest repeat them in turn, so that every "
            "sample has the same members), `view_ids`, their numbers in the source, and what else is known of it",
        ]
    )


_CARD = """# {name}

{summary}

{splits}

Members of a sample, next to each other in the tar in this order:

{members}

{params}

Normalisation, measured on the training split for pixels in [0, 1]: mean {mean}, deviation {std}.

```python
import datasets, webdataset
rows = datasets.load_dataset("THIS_FOLDER", split="{first}")        # rows[0]["{example}"], rows[0]["cls"] …
rows = webdataset.WebDataset("THIS_FOLDER/{first}-000000.tar", shardshuffle=False).decode("rgb8")
```

`_meta/dataset.json` has the schema, the classes, a sha256 of every file and where the set comes from;
`_meta/index-*.parquet` has one row a sample with the position of every member.
"""
