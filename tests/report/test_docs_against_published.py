"""What docs say about where a number stands in the paper, against the published numbers themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seqjepa.paper.published import published
from seqjepa.paper.sets import SETS

DOCS = Path(__file__).resolve().parents[2] / "docs"
METRICS = {
    "r2_rel_rot": "R2_rel_rot",
    "r2_indiv_rot": "R2_indiv_rot",
    "r2_hue": "R2_color",
    "r2_position": "R2_position",
    "r2_crop": "R2_crop",
    "r2_jitter": "R2_jitter",
    "r2_blur": "R2_blur",
}
"""Name in results.json → published metric."""
METHODS = {
    "simclr": "SimCLR",
    "byol": "BYOL",
    "vicreg": "VICReg",
    "vicreg_traj": "VICRegTraj",
    "sen": "SEN",
    "equimod": "EquiMod",
    "sie": "SIE",
    "conditional_byol": "Conditional BYOL",
    "conv_jepa": "Conv-JEPA",
}


def table_numbers(cell: str) -> set[int]:
    """ "Tables 1, 7; Figure 7" → {1, 7}."""
    stated = re.search(r"Tables? ([\d, and]+)", cell)
    return {int(number) for number in re.findall(r"\d+", stated[1])} if stated else set()


def row_of(page: str, name: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(rf"^\| `{name}` \|.*$", text, re.MULTILINE)
    assert found, f"{page} has no row of {name}"
    return found[0].strip("|").split("|")


@pytest.mark.parametrize("name", METRICS)
def test_evaluation_md_names_the_tables_of_a_metric(name: str) -> None:
    sources = {row.source for row in published() if row.metric == METRICS[name]}
    wanted = {int(source.removeprefix("Table ")) for source in sources if source.startswith("Table ")}
    assert table_numbers(row_of("evaluation.md", name)[-1]) == wanted


def test_evaluation_md_names_the_tables_of_retrieval() -> None:
    sources = {row.source for row in published() if row.metric == "MRR"}
    assert sources == {"Table 10", "Table 11"}
    text = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    stated = re.search(r"\*\*retrieval\*\* \(([^;)]*)", text)
    assert stated
    assert table_numbers(stated[1]) == {10, 11}


@pytest.mark.parametrize("method", METHODS)
def test_methods_md_names_the_tables_of_a_method(method: str) -> None:
    """A "+" variant counts as a row of the method."""
    mine = {METHODS[method], METHODS[method] + "+"}
    sources = {row.source for row in published() if row.method in mine}
    wanted = {int(source.removeprefix("Table ")) for source in sources if source.startswith("Table ")}
    assert table_numbers(row_of("methods.md", method)[-2]) == wanted


def of_table(source: str, metric: str, **fields: object) -> float:
    (row,) = (
        row
        for row in published()
        if (row.source, row.metric) == (source, metric) and all(getattr(row, key) == fields[key] for key in fields)
    )
    return row.value


def relative_rotations(*methods: str) -> list[float]:
    """R² of Table 1; of seq-JEPA at M_tr = M_val = 3."""
    seq_jepa = {"m_tr": 3, "m_val": 3, "conditioning": "rotation"}
    told = [seq_jepa if method == "seq-JEPA" else {} for method in methods]
    return [
        of_table("Table 1", "R2_rel_rot", method=method, **more) for method, more in zip(methods, told, strict=True)
    ]


def crops_of_tiny_imagenet() -> list[float]:
    told = {"method": "seq-JEPA", "dataset": SETS["tiny-imagenet"].name, "m_tr": 2}
    return [of_table("Table 2", "R2_crop", **told, conditioning=conditioning) for conditioning in ("crop", "")]


QUOTED = {
    r"reproduction.md: has ([\d.]+), sie ([\d.]+), equimod ([\d.]+), simclr (\d\.\d+)": relative_rotations(
        "seq-JEPA", "SIE", "EquiMod", "SimCLR"
    ),
    r"reproduction.md: ContextSSL have more, ([\d.]+), pooled": relative_rotations("ContextSSL"),
    r"comparison.md: R² of relative rotation \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|": relative_rotations(
        "seq-JEPA", "SIE", "SEN", "EquiMod"
    ),
    r"augmentations.md: The paper has ([\d.]+) and ([\d.]+) after ([\d,]+) epochs on ([\d,]+) images \(Table 2": [
        *crops_of_tiny_imagenet(), SETS["tiny-imagenet"].epochs, SETS["tiny-imagenet"].samples,
    ],
}  # fmt: skip


@pytest.mark.parametrize("quote", QUOTED)
def test_pages_quote_what_the_paper_has(quote: str) -> None:
    page, _, pattern = quote.partition(": ")
    found = re.search(pattern, (DOCS / page).read_text(encoding="utf-8"))
    assert found, f"{page} says it in other words"
    assert [float(text.replace(",", "")) for text in found.groups()] == QUOTED[quote]
