"""The site builds strictly, needs no network to be looked at, and its pages' links work in a repository browser too."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import seqjepa

ROOT = Path(__file__).resolve().parents[1]
HOOKS = ROOT / "docs" / "hooks"
PAGES = sorted(
    page.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "*/README.md", "*/*/README.md")
    for page in ROOT.glob(pattern)
    if not page.relative_to(ROOT).parts[0].startswith((".", "site"))
)
LINK = re.compile(r"(?<!`)\[[^\]`]*(?:`[^`]*`[^\]`]*)*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|^ {4}.*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def mkdocs(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", folder / "mkdocs.yml", "-d", out]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    built = mkdocs(ROOT, out)
    assert built.returncode == 0, f"{built.stdout}{built.stderr}\n(a new page has a line in the nav of mkdocs.yml)"
    return out


@pytest.mark.slow
def test_pages_are_there(site: Path) -> None:
    for name in ("index", "install", "own-data", "world-model", "api/use", "shards/index", "CHANGELOG", "CONTRIBUTING"):
        assert (site / f"{name}.html").is_file()
    assert (site / "benchmarks" / "results" / "shard-manifest-cpu2.json").is_file()  # a page links to it
    assert not list(site.rglob("*.py"))


@pytest.mark.slow
def test_nothing_is_loaded_from_a_network(site: Path) -> None:
    """Whatever a page loads by itself is a file of the site. Of the bundle's own URLs none is for what we use."""
    loaded = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?([^\"'\s>]+)")
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for address in loaded.findall(text):
            if not re.search(rf'rel="?canonical"?[^>]*{re.escape(address)}', text):
                assert not re.match(r"(https?:)?//", address), f"{page}: {address}"
        assert 'class="mermaid"' not in text  # would be fetched from a CDN
        assert 'data-md-component="source"' not in text  # would ask a repository host
    sheets = "".join(sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?(https?:)?//|@import", sheets)


@pytest.mark.slow
def test_the_search_knows_the_api_and_works_from_the_disk(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    places = {entry["location"] for entry in index["docs"]}
    public = {f"seqjepa.{name}" for name in seqjepa.__all__}
    for name in {*public, "seqjepa.model.Model.rollout", "seqjepa.model.RunActions.between"}:
        assert f"api/use.html#{name}" in places
    for name in ("seqjepa.losses.nt_xent", "seqjepa.methods.base.PredictsViews.predict"):
        assert f"api/training.html#{name}" in places
    assert "api/shards.html#shards.writer.SetBuilder.open_shard" in places
    assert (site / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index")
    assert "iframe-worker.js" in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_aligned_columns_of_docstrings_stay_aligned(site: Path) -> None:
    text = (site / "api" / "use.html").read_text(encoding="utf-8")
    assert "labels   int64 [B]                        -1 where a split has none" in re.sub(r"<[^>]+>", "", text)
    assert "[B, D" not in re.findall(r'href="([^"]*)"', text)


def test_settings_and_pages_ask_for_nothing_from_a_network() -> None:
    """The built site is looked through by the slow tests; `make docs` builds it, strictly."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "\n  font: false\n" in settings
    assert "polyfills: [assets/iframe-worker.js]" in settings
    assert not re.search(r"https?://|^repo_url", settings, re.MULTILINE)
    assert not [page for page in PAGES if "```mermaid" in (ROOT / page).read_text(encoding="utf-8")]


def slug(heading: str) -> str:
    """The anchor of a heading, as repository browsers make it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    for link in LINK.findall(CODE.sub("`", (ROOT / page).read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / page.parent / target).resolve() if target else ROOT / page
        assert path.exists(), f"{page}: {link}"
        assert path.is_relative_to(ROOT), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(path), f"{page}: {link}; there are {sorted(anchors(path))}"


def test_there_are_links() -> None:
    assert len(PAGES) > 30
    linked = [link for page in PAGES for link in LINK.findall((ROOT / page).read_text(encoding="utf-8"))]
    assert len([link for link in linked if not link.startswith("http")]) > 60


def small_site(folder: Path, page: str) -> subprocess.CompletedProcess[str]:
    """A site of one page that stands in docs/, beside tool/README.md and data.json."""
    for name in ("docs/hooks", "tool"):
        (folder / name).mkdir(parents=True)
    (folder / "docs" / "hooks" / "repository.py").write_bytes((HOOKS / "repository.py").read_bytes())
    (folder / "tool" / "README.md").write_text("# Tool\n\n## Use\n\nBack to [a page](../docs/index.md).\n")
    (folder / "tool" / "data.json").write_text("{}")
    (folder / "docs" / "index.md").write_text(page)
    settings = "site_name: s\nstrict: true\nhooks: [docs/hooks/repository.py]\nexclude_docs: hooks/\nnav: [index.md]\n"
    levels = "validation: {links: {anchors: warn, not_found: warn, unrecognized_links: warn}}\n"
    (folder / "mkdocs.yml").write_text(f"{settings}theme: mkdocs\nplugins: []\n{levels}")
    return mkdocs(folder, folder / "site")


def test_linked_files_join_the_site(tmp_path: Path) -> None:
    built = small_site(tmp_path, "[tool](../tool/README.md#use), [numbers](../tool/data.json), [folder](../tool)")
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    assert re.findall(r'href="(tool/[^"]*)"', page) == ["tool/#use", "tool/data.json", "tool/"]
    assert (tmp_path / "site" / "tool" / "data.json").read_text() == "{}"
    assert 'href=".."' in (tmp_path / "site" / "tool" / "index.html").read_text()


@pytest.mark.parametrize("link", ["../tool/gone.md", "../tool/README.md#gone", "gone.md"])
def test_a_broken_link_ends_the_build(link: str, tmp_path: Path) -> None:
    built = small_site(tmp_path, f"[what]({link})")
    assert built.returncode != 0
    assert "gone" in built.stderr


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", HOOKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docstrings_as_markdown() -> None:
    shown = hook("docstrings").shown
    assert shown("z [B, D][0] of `views[0]`, a * b.") == r"z \[B, D\]\[0\] of `views[0]`, a \* b."
    assert shown("Text.\n\nz    [B, D]\nall  [N]\n    more") == "Text.\n\n```text\nz    [B, D]\nall  [N]\n    more\n```"
