"""How well a saliency map tells where people looked. Pure NumPy; fixations are int [F, 2], (row, col) in the map.

auc   the chance that a fixated pixel has a higher value than any pixel of the image (ties count half): the area under
      the ROC curve of F fixations against all H·W pixels, i.e. uniform negatives without their sampling noise
sauc  the same against the pixels at which people looked in other images: a map that only knows the centre gets 0.5
nss   the map, standardised over its pixels (mean 0, deviation 1), averaged over fixations
ig    information gain in bits a fixation: the mean of log2(p + ε) − log2(prior + ε), ε = 2⁻⁵², where both sum to 1

Definitions as in Kümmerer, Wallis and Bethge (2015, 2018) and Bylinskii et al. (2019).
"""

from __future__ import annotations

import numpy as np

EPSILON = 2.0**-52


def auc(saliency: np.ndarray, fixations: np.ndarray) -> float:
    """Of a map [H, W] against all of its pixels."""
    return area_under_roc(at(saliency, fixations), saliency.ravel())


def shuffled_auc(saliency: np.ndarray, fixations: np.ndarray, negatives: np.ndarray) -> float:
    """negatives: int [N, 2], where people looked in other images."""
    return area_under_roc(at(saliency, fixations), at(saliency, negatives))


def nss(saliency: np.ndarray, fixations: np.ndarray) -> float:
    """0 for a flat map."""
    values = saliency.astype(np.float64)
    deviation = values.std()
    return float((at(values, fixations) - values.mean()).mean() / deviation) if deviation > 0 else 0.0


def information_gain(p: np.ndarray, prior: np.ndarray, fixations: np.ndarray) -> float:
    """In bits a fixation. p, prior: [H, W], each is normalised here in float64."""
    gained = [np.log2(at(q.astype(np.float64) / q.sum(dtype=np.float64), fixations) + EPSILON) for q in (p, prior)]
    return float((gained[0] - gained[1]).mean())


def area_under_roc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """P(positive > negative) + P(equal) / 2, over all pairs."""
    ordered = np.sort(negatives)
    below, up_to = (np.searchsorted(ordered, positives, side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(ordered)))


def at(values: np.ndarray, fixations: np.ndarray) -> np.ndarray:
    """[H, W] at [F, 2] → [F]."""
    return values[fixations[:, 0], fixations[:, 1]]
