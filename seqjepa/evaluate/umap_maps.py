"""Maps of the features in two dimensions, by UMAP (Figures 5 and 12 to 14).

Of validation samples of up to ten classes: z of single views, and z_AGG. The paper gives neither UMAP's settings nor
the classes; these are ours.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any

import numpy as np

from seqjepa.evaluate.artefacts import save_arrays
from seqjepa.evaluate.map_points import Points, aggregates, most_frequent, views
from seqjepa.evaluate.study import Case, Study
from seqjepa.methods.base import Aggregating
from seqjepa.methods.context_ssl import ContextSSL

NEIGHBOURS, MIN_DIST = 15, 0.1
CLASSES, MOST_POINTS, FEWEST_POINTS = 10, 5000, 10
AGG_SIZES = {"stored views": 5, "patches": 4, "augmentations": 5}
"""M_val of the paper's maps of z_AGG, by what views are."""


def _why_not(case: Case) -> str:
    if not case.subject.labelled:
        return "samples without a label"
    if int(case.banks.val.n_views.sum()) < FEWEST_POINTS:
        return f"needs {FEWEST_POINTS} views"
    if isinstance(case.loaded.method, ContextSSL):
        return "its views are probed after a context"
    if importlib.util.find_spec("umap") is None:
        return "umap-learn is not installed: pip install 'seqjepa[umap]'"
    return ""


def _take(case: Case) -> dict[str, Any]:
    """Writes umap.npz (save_arrays) and returns how far neighbours stay neighbours, 0 to 1, where sklearn is there.

    view_xy f32 [n, 2], view_class i16 [n], view_angle_deg f32 [n] or view_position f32 [n, 2] where views have them,
    agg_xy f32 [k, 2], agg_class i16 [k] where the method has z_AGG; class_names U [C], what the numbers
    of classes mean.
    """
    bank, seed = case.banks.val, case.bench.seed
    classes = most_frequent(bank, CLASSES)
    names = case.stored.info.classes
    arrays: dict[str, np.ndarray] = {"class_names": np.array([names[c] if names else str(c) for c in classes])}
    kinds = {"view": views(bank, classes, MOST_POINTS, seed)}
    if isinstance(case.loaded.method, Aggregating):
        size = min(AGG_SIZES[case.subject.seen], case.subject.most_context)
        kinds["agg"] = aggregates(case, classes, size, MOST_POINTS)
    scores = {}
    for kind, points in kinds.items():
        if len(points) < FEWEST_POINTS:
            continue
        xy = flattened(points.x, seed)
        arrays |= {f"{kind}_xy": xy, f"{kind}_class": points.label}
        arrays |= {f"{kind}_{name}": values for name, values in points.colours.items()}
        scores |= _trustworthiness(kind, points, xy)
    save_arrays(case.folder, "umap", arrays)
    return {"umap": scores}


def flattened(x: np.ndarray, seed: int) -> np.ndarray:
    """Points float32 [n, D] → their places float32 [n, 2]; the same for the same seed on the same machine."""
    umap = _import_umap()
    how = {"n_neighbors": min(NEIGHBOURS, len(x) - 1), "min_dist": MIN_DIST, "random_state": seed, "n_jobs": 1}
    return np.asarray(umap.UMAP(**how).fit_transform(x), np.float32)


def _import_umap() -> Any:
    """Importing it warns that tensorflow, which we have no use for, is missing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tensorflow not installed", category=ImportWarning)
        return importlib.import_module("umap")


def _trustworthiness(kind: str, points: Points, xy: np.ndarray) -> dict[str, float]:
    """Of the 15 nearest points on the map, how far they are the nearest in the features too (Venna & Kaski 2001)."""
    if importlib.util.find_spec("sklearn") is None:
        return {}
    from sklearn.manifold import trustworthiness

    neighbours = min(NEIGHBOURS, (len(xy) - 1) // 2)
    return {f"trustworthiness_{kind}": float(trustworthiness(points.x, xy, n_neighbors=neighbours))}


UMAP = Study(
    name="umap",
    why_not=_why_not,
    take=_take,
    rows={
        "umap.trustworthiness_view": "map of z: trustworthiness, 15 neighbours",
        "umap.trustworthiness_agg": "map of z_AGG: trustworthiness, 15 neighbours",
    },
)
