"""The data card: README.md of a set. Its YAML head lets `datasets.load_dataset(DIR)` find the splits."""

from __future__ import annotations

import json

from shards.kinds import kind_of
from shards.schema import DatasetInfo

_SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]


def data_card(info: DatasetInfo) -> str:
    """The whole text, the same for the same info."""
    kind = kind_of(info.spec)
    return _yaml(info) + _CARD.format(
        name=info.name,
        summary=kind.card_summary(info),
        splits=_split_table(info),
        members="\n".join(kind.card_members()),
        normalisation=_NORMALISATION.format(**info.normalisation) if info.normalisation else "",
        example=info.spec.suffixes()[0].lstrip("."),
        first=next(iter(info.splits)),
    )


def _yaml(info: DatasetInfo) -> str:
    lines = ["---", f"pretty_name: {json.dumps(info.name)}", "tags:", "- webdataset", "size_categories:"]
    lines += [f"- {_size_category(info.samples)}", "configs:", "- config_name: default", "  data_files:"]
    for split in info.splits:
        lines += [f"  - split: {split}", f'    path: "{split}-*.tar"']
    return "\n".join([*lines, "---", "", ""])


def _size_category(samples: int) -> str:
    return next((name for limit, name in _SIZES if samples < limit), "n>1M")


def _split_table(info: DatasetInfo) -> str:
    rows = [f"| {name} | {s.samples:,} | {len(s.shards):,} | {s.bytes:,} |" for name, s in info.splits.items()]
    return "\n".join(["| split | samples | shards | bytes |", "|---|---|---|---|", *rows])


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
