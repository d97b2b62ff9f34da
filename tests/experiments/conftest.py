"""For all tests of experiments."""

from __future__ import annotations

from small_backbone import narrow_mlps

__all__ = ["narrow_mlps"]
