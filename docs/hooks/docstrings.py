"""Docstrings as they are written – plain prose, and names with what they mean in aligned columns – in the reference.

Markdown would run columns together: paragraphs with columns or an indent are shown as text, line by line.
"""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import griffe

MARKS = re.compile(r"[\[\]<*]")  # [B, M] [B, D] is no link
COLUMNS = re.compile(r"\S {2,}\S|^ {2,}\S", re.MULTILINE)


class AlignedColumns(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = shown(obj.docstring.value)


def shown(docstring: str) -> str:
    """Its Markdown. Paragraphs are parted by blank lines."""
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n\s*\n", docstring))


def _paragraph(text: str) -> str:
    if COLUMNS.search(text):
        return f"```text\n{dedent(text)}\n```"
    spans = re.split(r"(`[^`]*`)", text)  # every other one is code
    spans[::2] = [MARKS.sub(r"\\\g<0>", span) for span in spans[::2]]
    return "".join(spans)
