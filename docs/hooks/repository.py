"""Files of the repository beside docs/ – README files, results of benchmarks, the changelog – as pages of the site.

Pages link to them as a repository browser resolves links ("../shards/README.md"). Every file that the navigation names
or a page links to joins the site under its path in the repository, and links are rewritten to where it lies there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

DOCS = "docs/"
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")
HOME = {"README.md": "index.md"}
"""The repository's front page is not the site's: a link to it leads to the site's own."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    root = Path(config.config_file_path).parent
    waiting = [DOCS + file.src_uri for file in files.documentation_pages()]
    named = {name for name in _named(config.nav) if not files.get_file_from_path(name)}
    waiting += sorted(named)
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not (path.startswith(DOCS) or path in HOME) and (root / path).is_file():
            shown = InclusionLevel.INCLUDED if path in named else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, path, abs_src_path=str(root / path), inclusion=shown))
        if path.endswith(".md") and (root / path).is_file():
            text = (root / path).read_text(encoding="utf-8")
            new = {target for link in LINK.findall(text) if (target := _target(root, path, link))} - seen
            seen |= new
            waiting += sorted(new)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    root = Path(config.config_file_path).parent
    here = page.file.src_uri if _is_outside(page.file, root) else DOCS + page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        target = _target(root, here, match[1])
        return posixpath.relpath(_place(target), posixpath.dirname(page.file.src_uri)) if target else match[1]

    return LINK.sub(moved, markdown)


def _named(nav: Any) -> Iterator[str]:
    """The pages that a navigation names."""
    if isinstance(nav, str):
        yield nav
    elif nav:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(entry)


def _is_outside(file: File, root: Path) -> bool:
    return not Path(file.abs_src_path or root / DOCS).is_relative_to(root / DOCS)


def _target(root: Path, page: str, link: str) -> str:
    """The file of the repository that a link of a page leads to, a folder's README for a folder; "": it is no such."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    if path.startswith(("..", "/")) or ":" in link:
        return ""
    if (root / path).is_dir():
        path = posixpath.join(path, "README.md")
    return path if (root / path).is_file() else ""


def _place(path: str) -> str:
    """Where a file of the repository lies among the site's sources; notebooks are pages (notebooks.py)."""
    return re.sub(r"\.ipynb$", ".md", HOME.get(path, path.removeprefix(DOCS)))
