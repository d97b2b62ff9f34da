from __future__ import annotations

from collections import Counter

from seqjepa.paper.published import of_source, published
from seqjepa.paper.sets import CLASSES_SHA256, classes_sha256, paper_set

STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def test_every_value_is_there():
    rows = published()
    counts = Counter(row.source.split("-")[0] for row in rows)
    assert len(rows) == 901
    assert sum(n for source, n in counts.items() if source.startswith(("Table", "Poster"))) == 531
    assert sum(n for source, n in counts.items() if source.startswith("Figure")) == 370
    assert {f"Table {n}" for n in range(1, 13)} < set(counts)
    assert [counts[f"Table {n}"] for n in range(1, 13)] == [42, 216, 14, 14, 7, 20, 15, 18, 40, 12, 27, 88]


def test_fields_have_their_types():
    (best,) = [r for r in of_source("Table 1") if r.m_val == 5 and r.metric == "top1_acc"]
    assert (best.value, best.m_tr, best.method, best.conditioning) == (87.41, 3, "seq-JEPA", "rotation")
    assert best.std is None
    ablation = of_source("Table 4")[0]
    assert (ablation.value, ablation.std, ablation.seeds) == (87.36, 0.7, 3)


def test_no_value_stands_twice_in_a_table():
    keys = Counter((r.source, r.dataset, r.method, r.conditioning, r.m_tr, r.m_val, r.variant, r.views, r.resolution,
                    r.metric) for r in published())  # fmt: skip
    assert set(keys.values()) == {1}


def test_stl10_is_known_by_its_classes_in_any_order():
    assert paper_set({"classes_sha256": classes_sha256(reversed(STL10))}) == "STL-10"
    assert paper_set({"classes_sha256": classes_sha256(STL10[1:])}) == ""
    assert paper_set({}) == ""
    assert {row.dataset for row in of_source("Table 12")} == set(CLASSES_SHA256.values())
