"""Published constants that pixels are normalised by, by name, and which of two the fidelity means.

Explicit names always mean the same numbers: a run's config.toml holds nothing else. "NAME-published", for recipes, is
"NAME-paper" under fidelity paper and "NAME-author" under author; "NAME-author" is another word for "NAME".
"""

from __future__ import annotations

PixelConstants = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation per channel (R, G, B), for pixels in [0, 1]."""

_PAPER: PixelConstants = ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
NORMALISATIONS: dict[str, PixelConstants] = {
    "3diebench": ((0.5016, 0.5037, 0.5060), (0.1030, 0.0999, 0.0969)),
    "stl10": ((0.4467, 0.4398, 0.4066), (0.2241, 0.2215, 0.2239)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),  # released: datasets.py, line 136
    "tiny-imagenet": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),  # released: datasets.py, lines 270 and 271
    "cifar100-paper": _PAPER,  # §A.1, for both sets; they are CIFAR-10's
    "tiny-imagenet-paper": _PAPER,
}
PAPER, AUTHOR, PUBLISHED = "-paper", "-author", "-published"
TWO_WAYS = ("cifar100", "tiny-imagenet")
"""Sets of which paper and released code have different constants."""


def explicit(name: str, fidelity: str) -> str:
    """The name in NORMALISATIONS that a name means under a fidelity; a name that is neither is given back."""
    for base in TWO_WAYS:
        if name == base + AUTHOR or (name == base + PUBLISHED and fidelity == "author"):
            return base
        if name == base + PUBLISHED:
            return base + PAPER
    return name


def data_set_of(name: str) -> str:
    """The data set whose constants a name stands for: "cifar100-paper" → "cifar100"."""
    return next((base for base in TWO_WAYS if name.startswith(base)), name)
