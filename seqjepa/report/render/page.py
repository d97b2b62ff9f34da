"""The shell of a page: one file, no network, no script; a keyboard can reach everything.

Arrows that say whether more or less is better, on a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from seqjepa.paper.metrics import ARROWS, Direction, judged


@dataclass(frozen=True)
class Section:
    """A part of a page under its own heading. key: its anchor; content: HTML; empty sections are left out."""

    key: str
    heading: str
    content: str


def document(title: str, header: str, sections: Sequence[Section], *, contents: bool = False) -> str:
    """The whole document as HTML text.

    header    HTML of what stands above the sections: the <h1> and what a reader should see first
    contents  whether to begin with a link past the list of sections, and that list
    """
    shown = [section for section in sections if section.content]
    style = (files("seqjepa.report") / "style.css").read_text(encoding="utf-8")
    skip = '<a class=skip href="#main">Skip to the report</a>\n' if contents else ""
    body = "\n".join([f"<header>\n{header}\n</header>", *map(_section_html, shown)])
    return (
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n{skip}{_contents(shown) if contents else ''}"
        f"<main id=main tabindex=-1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def listing(lines: Sequence[str]) -> str:
    """<ul> of plain text; empty if there are no lines."""
    return "<ul>\n" + "".join(f"<li>{escape(line)}</li>\n" for line in lines) + "</ul>" if lines else ""


def scrolling(label: str, content: str) -> str:
    """A box that scrolls by itself, so that the page never does sideways; a keyboard can focus and scroll it."""
    return f'<div class=scroll tabindex=0 role=region aria-label="{escape(label)}">\n{content}\n</div>'


def folded(heading: str, said: str, content: str) -> str:
    """A heading of the third level that opens what is below it, with a line that says what that is; all HTML."""
    summary = f"<summary><h3>{heading}</h3> <small>{said}</small></summary>"
    return f"<details class=folded>\n{summary}\n{content}\n</details>\n"


def _section_html(section: Section) -> str:
    return f'<section id="{section.key}">\n<h2>{escape(section.heading)}</h2>\n{section.content}\n</section>'


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(f'<li><a href="#{s.key}">{escape(s.heading)}</a></li>\n' for s in sections)
    return f'<nav aria-label="Sections">\n<ul>\n{links}</ul>\n</nav>\n'


def arrow(better: Direction) -> str:
    """ " ↓" with its meaning in words; "" without a direction."""
    return f' <abbr class=arrow title="{better} is better">{ARROWS[better]}</abbr>' if better else ""


def coloured(text: str, difference: float | None, better: Direction) -> str:
    """A difference in the colour of what is better, as the arrow beside its number says."""
    verdict = judged(difference, better)
    return f"<span class={verdict}>{escape(text)}</span>" if verdict else escape(text)
