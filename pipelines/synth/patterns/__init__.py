"""Patterns-Synth: twenty shapes in five patterns, in CIFAR-100's own format. Map: ../../README.md.

The hundred fine classes are pairs of shape and pattern, the twenty coarse ones are the shapes. Both survive crops,
flips, blur and other colours, which is what training on augmented views has to find out.
"""

from pipelines.synth.patterns.picture import (
    CLASSES,
    PATTERNS,
    SHAPES,
    PatternPicture,
    draw_pattern,
    fine_names,
    parts_of,
)
from pipelines.synth.patterns.write import PatternsConfig, synth_cifar100

__all__ = [
    "CLASSES",
    "PATTERNS",
    "SHAPES",
    "PatternPicture",
    "PatternsConfig",
    "draw_pattern",
    "fine_names",
    "parts_of",
    "synth_cifar100",
]
