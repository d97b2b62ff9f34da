"""Arrows that say whether more or less is better, on a page."""

from __future__ import annotations

from html import escape

from seqjepa.evaluate.direction import ARROWS, Direction, judged


def arrow(better: Direction) -> str:
    """ " ↓" with its meaning in words; "" without a direction."""
    return f' <abbr class=arrow title="{better} is better">{ARROWS[better]}</abbr>' if better else ""


def coloured(text: str, difference: float | None, better: Direction) -> str:
    """A difference in the colour of what is better, as the arrow beside its number says."""
    verdict = judged(difference, better)
    return f"<span class={verdict}>{escape(text)}</span>" if verdict else escape(text)
