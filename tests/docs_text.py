"""What README files and docs show: blocks of Python, and command lines of ours."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page.relative_to(ROOT)
    for pattern in ("README.md", "docs/**/*.md", "*/README.md", "seqjepa/*/README.md", "pipelines/*/README.md")
    for page in ROOT.glob(pattern)
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}\S?.*\n|^\n(?= {4}))+", re.MULTILINE)
CALL = "((?:seqjepa|seqjepa-data) [^`]+)"


@dataclass(frozen=True)
class Shown:
    """A piece of a page, and the line that it begins in."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def python_blocks() -> list[Shown]:
    """Every fenced block of Python."""
    return [block for page in PAGES for language, block in _fenced(page) if language == "python"]


def command_lines() -> list[Shown]:
    """Every line of a block, fenced or indented, that calls one of our commands: the call itself, comments dropped."""
    return [call for page in PAGES for block in _blocks(page) for call in _calls(block)] + [
        call for block in notebook_cells() if block.text.startswith("%%bash\n") for call in _calls(block)
    ]


def notebook_cells() -> list[Shown]:
    """Every code cell of the notebooks; its line is the cell's number."""
    return [
        Shown(page.relative_to(ROOT), number, "".join(cell["source"]))
        for page in sorted(ROOT.glob("docs/notebooks/*.ipynb"))
        for number, cell in enumerate(json.loads(page.read_text(encoding="utf-8"))["cells"], 1)
        if cell["cell_type"] == "code"
    ]


def inline_calls() -> list[Shown]:
    """Every `seqjepa …` in running text, its line breaks as blanks."""
    found = []
    for page in PAGES:
        text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), (ROOT / page).read_text(encoding="utf-8"))
        for match in re.finditer(f"`{CALL}`", text):
            found.append(Shown(page, text.count("\n", 0, match.start()) + 1, " ".join(match[1].split())))
    return found


def arguments(call: str) -> list[str]:
    """The words of a call. "…" and [options in brackets] stand for words that are left out."""
    return shlex.split(re.sub(r"\[[^\]]*\]…?|…", " ", call), comments=True)


def _fenced(page: Path) -> Iterator[tuple[str, Shown]]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield match[1], Shown(page, text.count("\n", 0, match.start()) + 2, match[2])


def _blocks(page: Path) -> Iterator[Shown]:
    yield from (block for language, block in _fenced(page) if language in ("sh", "bash", ""))
    text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), (ROOT / page).read_text(encoding="utf-8"))
    for match in INDENTED.finditer(text):
        yield Shown(page, text.count("\n", 0, match.start()) + 1, match[0])


def calls_in(text: str) -> list[str]:
    """The calls in the examples of a help text, what stands beside them in a column of its own dropped."""
    return [re.sub(r" {3,}[^-\s].*", "", call) for _, call in _numbered_calls(text)]


def _calls(block: Shown) -> Iterator[Shown]:
    for number, call in _numbered_calls(block.text):
        yield Shown(block.page, block.line + number, call)


def _numbered_calls(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(re.sub(r"\\\n *", " ", text).split("\n")):
        for part in re.split(r"&&|;|\||&(?:\s|$)", re.sub(r"(^|\s)#.*", "", line)):
            if call := re.search(rf"(?:^|Example: +|--no-python |[A-Z_]+=\S+ ){CALL}$", part.strip()):
                yield number, re.sub(r"(?: 2>&1| >+ *\S+)+$", "", call[1])
