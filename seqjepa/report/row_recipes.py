"""Which packaged recipe is for a published value: what a run is held against before its number stands beside it."""

from __future__ import annotations

from seqjepa.report.published import Published

SETS = {"3DIEBench": "3die", "CIFAR100": "c100", "TinyImageNet": "tiny", "STL-10": "stl", "ImageNet-1k": "stl"}
ACTIONS = {"rotation": "rot", "rotation+color": "rotcolour", "crop+jitter+blur": "all", "": "noact", "position": ""}
VARIANTS = {
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
    data = SETS[row.dataset.removesuffix("-OOD").removesuffix(" (presumed)")]
    action = "rot" if row.source in UNSAID else ACTIONS.get(row.conditioning, row.conditioning)
    if row.method == "seq-JEPA":
        return _of_seq_jepa(row, data, action)
    if row.method == "ContextSSL":
        return f"context-ssl-{data}"
    if row.method == "Conv-JEPA":
        return f"conv-jepa-{data}-M{row.m_tr}"
    plain = row.method.removesuffix("+")
    told = "" if data == "stl" or plain in UNCONDITIONED else action
    slug = plain.lower().replace(" ", "-").replace("vicregtraj", "vicreg-traj")
    last = "plus" if row.method.endswith("+") else "hc" if row.source == "Table 11" else ""
    return "-".join(part for part in (slug, data, told, last) if part)


def _of_seq_jepa(row: Published, data: str, action: str) -> str:
    if row.variant == "Full-sized aug. imgs":
        return f"stl-fullsize-M{row.m_tr}"
    word = "hc" if row.source == "Table 11" else VARIANTS.get(row.variant, action)
    parts = (data, "pls" if data == "stl" else "", word, f"M{row.m_tr or USUAL_M_TR[data]}")
    return "-".join(part for part in parts if part)
