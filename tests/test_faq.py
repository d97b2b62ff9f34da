"""Every message that docs/faq.md quotes is one that the code can say, word for word; "…" stands for what varies."""

from __future__ import annotations

import ast
import functools
import re

import pytest
from our_code import CODE, ROOT, nodes_of

FAQ = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"\*\*`([^`]+)`\*\*", FAQ)


def said(node: ast.expr) -> str:
    """A string of the code, "…" for what is put in, and for names beside it in a sum."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(map(said, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return said(node.left) + said(node.right)
    return "…"


@functools.cache
def strings() -> str:
    """All of the code's, with NULs between them."""
    kinds = (ast.Constant, ast.JoinedStr, ast.BinOp)
    return "\0".join({said(node) for path in CODE for node in nodes_of(path) if isinstance(node, kinds)})


def known(message: str) -> bool:
    """Whether one string of the code has the message's words, in its order, with something put in for each "…"."""
    pieces = [re.escape(piece) for piece in re.split("…", message.strip("… "))]
    return re.search(r"[^\0]*".join(pieces), strings()) is not None


@pytest.mark.parametrize("message", QUOTED)
def test_the_code_says_it(message: str) -> None:
    assert len(re.sub(r"[^a-z]", "", message)) >= 11, "too little to find by"
    assert known(message)


def test_there_are_messages_and_each_has_advice() -> None:
    assert len(QUOTED) > 25
    entries = re.split(r"^(?=\*\*)", FAQ, flags=re.MULTILINE)[1:]
    assert len(entries) > 30
    for entry in entries:
        advice = re.sub(r"\*\*`[^`]+`\*\*,?|\*\*[^*]+\*\*|^## .*$", "", entry, flags=re.MULTILINE)
        assert len(advice.split()) >= 6, entry


def test_other_words_are_found_out() -> None:
    assert not known("no recipe is for …, which holds …; declare deeds of its parameters")
    assert not known("the loss is not finite; the last checkpoint is from … use fewer views")
