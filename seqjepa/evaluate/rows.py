"""What a number is called on the terminal and in reports, by its dotted key in results.json; {} for a size."""

from __future__ import annotations

from seqjepa.evaluate import suites

PATHS = {"both": "vision and actions", "no_action": "vision alone", "no_vision": "actions alone"}
"""Path integration: what its heads are shown, by name in results.json."""
ROWS = {
    "top1_z": "top-1, z",
    "top1_z_image": "top-1, z of the whole image",
    "top1_z_patch": "top-1, z of the first patch",
    "top1_z_view": "top-1, z of one augmented view",
    "top1_z_mean": "top-1, mean z, M_val = {}",
    "top1_agg": "top-1, z_AGG, M_val = {}",
    "r2_rel_rot_avg": "R² relative rotation, avg",
    "r2_rel_rot_pool": "R² relative rotation, pooled",
    "rel_rot_deg": "relative rotation, mean error in degrees",
    "rel_rot_deg_median": "relative rotation, median error in degrees",
    "r2_indiv_rot_avg": "R² individual rotation, avg",
    "r2_indiv_rot_pool": "R² individual rotation, pooled",
    "indiv_rot_deg": "individual rotation, mean error in degrees",
    "indiv_rot_deg_median": "individual rotation, median error in degrees",
    "r2_hue_avg": "R² hue difference, avg",
    "r2_hue_pool": "R² hue difference, pooled",
    "r2_position_avg": "R² position difference, avg",
    "r2_position_pool": "R² position difference, pooled",
    **{
        f"r2_{part}_{kind}": f"R² {part} difference, {shown}"
        for part in ("crop", "jitter", "blur")
        for kind, shown in (("avg", "avg"), ("pool", "pooled"))
    },
    **{f"r2_path.{name}": f"R² path, {shown}, M = {{}}" for name, shown in PATHS.items()},
}
IN_CONTEXT = ("top1_z", *(f"r2_{what}_{kind}" for what in ("rel_rot", "indiv_rot", "hue") for kind in ("avg", "pool")))
IN_CONTEXT += tuple(f"{what}_rot_{kind}" for what in ("rel", "indiv") for kind in ("deg", "deg_median"))
ROWS |= {f"in_context.encoder.{name}": f"{ROWS[name]}, without the transformer" for name in IN_CONTEXT}
ROWS |= {
    f"in_context.{environment}.{name}": f"{ROWS[name]}, context of {environment}, {{}} tokens"
    for environment in ("rotation", "colour")
    for name in IN_CONTEXT
}
ROWS |= {
    f"halves.{half}.{name}": f"{label}, {half} half"
    for half in ("invariant", "equivariant")
    for name, label in ROWS.items()
    if not name.startswith(("top1_agg", "r2_path", "in_context"))
}
ROWS |= suites.ROWS
