"""The form of each table: which fields of a published value name its row and its column, and what those are called.

And the packaged recipe of each published value, which a run is held against before its number stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqjepa.paper.metrics import PAPER_METRICS
from seqjepa.paper.published import Published

HEADS = {
    "dataset": "Data set",
    "method": "Method",
    "conditioning": "Conditioned on",
    "variant": "Variant",
    "m_tr": "M_tr",
    "m_val": "M_val",
    "views": "Glance, px",
    "resolution": "Input, px",
}
SETS = {"CIFAR100": "CIFAR-100", "TinyImageNet": "Tiny ImageNet"}
NOTHING = "–"


@dataclass(frozen=True)
class Layout:
    """rows, columns: fields of Published. The order of both is that of the published values.

    own_notes: what has to be said where the form is filled with runs on other data, too.
    """

    key: str
    source: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...] = ("metric",)
    notes: tuple[str, ...] = ()
    own_notes: tuple[str, ...] = ()

    def labels(self, row: Published) -> tuple[str, ...]:
        return tuple(_said(field, getattr(row, field)) for field in self.rows)

    def heading(self, row: Published) -> str:
        parts = {field: _said(field, getattr(row, field)) for field in self.columns}
        name = PAPER_METRICS[row.metric][0] if "metric" in self.columns else ""
        sizes = [
            f"{HEADS[field]} {parts[field]}" for field in ("m_tr", "m_val") if parts.get(field, NOTHING) != NOTHING
        ]
        named = [parts[field] for field in ("dataset", "conditioning") if field in parts]
        return ", ".join(part for part in (*named, name, *sizes) if part)


def _said(field: str, value: object) -> str:
    if field == "conditioning":
        return str(value) or "nothing"
    if field == "dataset":
        return SETS.get(str(value), str(value))
    return NOTHING if value is None or value == "" else str(value)


_METHOD = ("method", "conditioning", "m_tr", "m_val")
_MAP = "Top-1 accuracy on z_AGG (%) by views in training and in evaluation"
_READ = "Published values are read from the figure to 0.1."
_R2 = "R² is the mean over dimensions (scikit-learn), as in the released code"

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "table-1", "Table 1", "Table 1: 3DIEBench, conditioned on rotation", _METHOD,
        notes=(
            f"{_R2}; ContextSSL's is pooled over all entries (SIE), which makes it larger.",
            "ContextSSL: its authors' weights, 126 tokens of context.",
        ),
    ),
    Layout(
        "table-2", "Table 2", "Table 2: CIFAR-100 and Tiny ImageNet, hand-crafted augmentations", _METHOD,
        ("dataset", "metric"),
        (f"{_R2}; the paper does not say of how many views its targets were scaled.",),
    ),
    Layout(
        "table-3", "Table 3", "Table 3: STL-10, predictive learning across saccades",
        ("method", "variant", "conditioning", "m_tr", "m_val"),
        notes=(
            "For the printed M_val 4 ours is measured at M_val 5, where the published values belong (footnote 4).",
            "The paper does not say how Conv-JEPA's patches are classified; ours is z of the whole image.",
        ),
        own_notes=("In rows of M_val 4 top-1 is of M_val 5, where what Table 3 prints belongs (footnote 4).",),
    ),
    Layout(
        "table-4", "Table 4", "Table 4: what seq-JEPA is told of actions (3DIEBench, M_tr 3, M_val 5)", ("variant",),
        notes=("Published: mean ± standard deviation over three seeds, of which kind is not said.",),
    ),
    Layout(
        "table-5", "Table 5", "Table 5: GPU hours of training", ("method", "m_tr"),
        notes=("Published: 1000 epochs at 128 px, batch 512, on one A100 of 40 GB. Ours: on the device of each cell.",),
    ),
    Layout(
        "table-6", "Table 6", "Table 6: multiply–accumulates of one sample", ("views", "resolution"),
        ("metric", "m_val"),
        ("Printed as GFLOPs; the numbers are 10⁹ multiply–accumulates. Ours are counted and need no data.",),
    ),
    Layout("table-7", "Table 7", "Table 7: 3DIEBench, conditioned on rotation and colour", _METHOD, notes=(f"{_R2}.",)),
    Layout("table-8", "Table 8", 'Table 8: transformer projectors ("+"), 3DIEBench', _METHOD[:2], notes=(f"{_R2}.",)),
    Layout(
        "table-9", "Table 9", "Table 9: rotations outside the training range (3DIEBench-OOD)", _METHOD,
        notes=("Probes are those of the ID numbers; nothing is fitted to OOD views.",),
    ),
    Layout(
        "table-10", "Table 10", "Table 10: retrieval by the predictor (3DIEBench, val–val)", _METHOD,
        notes=(
            "SIE's protocol with the identity query; random embeddings give 0.090, 0.02, 0.10.",
            "How the paper retrieved for seq-JEPA is not published: ours compares with the EMA encoder's features.",
        ),
    ),
    Layout(
        "table-11", "Table 11", "Table 11: 3DIEBench with more compute", _METHOD,
        notes=("Published: 2000 epochs at 256 px, batch 1024, on four A100. Ours: runs at 256 px or more.",),
    ),
    Layout(
        "table-12", "Table 12", "Table 12: z and z_AGG of seq-JEPA",
        ("dataset", "conditioning", "variant", "m_tr"), ("metric", "m_val"),
    ),
    Layout(
        "poster-stl10", "Poster STL10", "Poster: STL-10", _METHOD,
        notes=("Baselines: augmented whole images. The poster gives no training budget; here that of Table 3.",),
    ),
    Layout("poster-ablations", "Poster STL10-ablation", "Poster: ablations on STL-10", ("variant", "m_tr", "m_val")),
    Layout(
        "poster-odd-one-out", "Poster odd-one-out", "Poster: odd one out", ("variant",),
        notes=("No source gives the protocol, so ours is our own: only the order of the rows can be compared.",),
    ),
    Layout("figure-8", "Figure 8", f"Figure 8 as a table, 3DIEBench: {_MAP}", ("m_val",), ("m_tr",), (_READ,)),
    Layout("figure-9", "Figure 9", f"Figure 9 as a table, STL-10: {_MAP}", ("m_val",), ("m_tr",), (_READ,)),
    Layout(
        "figure-10", "Figure 10", f"Figure 10 as a table, CIFAR-100: {_MAP}", ("m_val",), ("conditioning", "m_tr"),
        (_READ,),
    ),
    Layout(
        "figure-11", "Figure 11", f"Figure 11 as a table, Tiny ImageNet: {_MAP}", ("m_val",), ("conditioning", "m_tr"),
        (_READ,),
    ),
)  # fmt: skip

SET_SLUGS = {"3DIEBench": "3die", "CIFAR100": "c100", "TinyImageNet": "tiny", "STL-10": "stl", "ImageNet-1k": "stl"}
ACTION_SLUGS = {
    "rotation": "rot",
    "rotation+color": "rotcolour",
    "crop+jitter+blur": "all",
    "": "noact",
    "position": "",
}
VARIANT_SLUGS = {
    "no predictor conditioning": "nopred",
    "no transformer conditioning": "notrans",
    "w/o saliency & IoR": "nosal",
    "No saliency map": "nosal",
    "w/o IoR": "noior",
    "No IoR": "noior",
    "ResNet-18 enc.": "stdstem",
    **{f"action_embedding_dim={size}": f"adim{size}" for size in (16, 64, 128, 256)},
}
UNCONDITIONED = ("SimCLR", "BYOL", "VICReg", "VICRegTraj")
UNSAID = ("Table 5", "Poster odd-one-out")
"""Tables that leave out what methods are conditioned on: rotation."""
USUAL_M_TR = {"3die": 3, "stl": 4}
"""Where a figure does not say it."""


def recipe_of(row: Published) -> str:
    """Name of the recipe; "" for costs that depend on no training (Table 6)."""
    if not row.dataset:
        return ""
    data = SET_SLUGS[row.paper_set]
    action = "rot" if row.source in UNSAID else ACTION_SLUGS.get(row.conditioning, row.conditioning)
    if row.method == "seq-JEPA":
        return _seq_jepa_recipe(row, data, action)
    if row.method == "ContextSSL":
        return f"context-ssl-{data}"
    if row.method == "Conv-JEPA":
        return f"conv-jepa-{data}-M{row.m_tr}"
    plain = row.method.removesuffix("+")
    told = "" if data == "stl" or plain in UNCONDITIONED else action
    slug = plain.lower().replace(" ", "-").replace("vicregtraj", "vicreg-traj")
    last = "plus" if row.method.endswith("+") else "hc" if row.source == "Table 11" else ""
    return "-".join(part for part in (slug, data, told, last) if part)


def _seq_jepa_recipe(row: Published, data: str, action: str) -> str:
    if row.variant == "Full-sized aug. imgs":
        return f"stl-fullsize-M{row.m_tr}"
    word = "hc" if row.source == "Table 11" else VARIANT_SLUGS.get(row.variant, action)
    parts = (data, "pls" if data == "stl" else "", word, f"M{row.m_tr or USUAL_M_TR[data]}")
    return "-".join(part for part in parts if part)
