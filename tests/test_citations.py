"""What the code cites can be looked up: the paper, docs/fidelity.md, or a commit of other people's code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import docs_text
import pytest

ROOT = Path(__file__).resolve().parents[1]
FIDELITY = ROOT / "docs" / "fidelity.md"
ROW = re.compile(r"^\| (\d+) \|(?:[^|]*\|){5} ([^|]*) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every text file that git holds, by name."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.split("\0") if name.endswith((".py", ".md", ".toml", ".txt"))]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names if (ROOT / name).is_file()}


def fidelity_rows() -> dict[int, str]:
    """Number → the cell that says where in our code."""
    return {int(number): where for number, where in ROW.findall(FIDELITY.read_text(encoding="utf-8"))}


def test_nothing_cites_a_file_that_is_not_here(texts: dict[str, str]) -> None:
    """Sections are the paper's (§A.2); a bare letter and number, or the name in capitals, was a private note's.

    H.264 and its like are recommendations of the ITU-T.
    """
    private = re.compile(r"\b[S](?:PEC|ALIENCY recipe)\b|(?<![§\w.])(?!H\.2\d\d\b)[A-H]\.\d")
    assert [(name, hit[0]) for name, text in texts.items() if (hit := private.search(text))] == []


def test_sections_are_those_that_the_paper_has(texts: dict[str, str]) -> None:
    """Those that were looked up in version 3; look a further one up before it is added."""
    known = {
        "§2.2",
        "§3.1",
        "§3.2",
        "§3.3",
        "§4.1",
        "§4.4",
        "§4.5",
        "§A.1",
        "§A.2",
        "§A.3",
        "§B.2",
        "§B.3",
        "§B.9",
        "§B.10",
    }
    sections = {hit for text in texts.values() for hit in re.findall(r"§[A-Z0-9]\.\d+", text)}
    assert {"§2.2", "§A.1", "§A.2", "§A.3"} <= sections
    assert sections - known == set()


def test_rows_of_fidelity_md_that_are_cited_exist(texts: dict[str, str]) -> None:
    rows = fidelity_rows()
    assert sorted(rows) == list(range(1, 61))
    cited = {
        (name, int(number))
        for name, text in texts.items()
        for numbers in re.findall(r"docs/fidelity\.md (#\d+(?:(?:[–-]|, )#?\d+)*)", text)
        for number in re.findall(r"\d+", numbers)
    }
    assert len(cited) > 30
    assert [(name, number) for name, number in cited if number not in rows] == []


def test_fidelity_md_says_where_in_the_code() -> None:
    for number, where in fidelity_rows().items():
        places = re.findall(r"`([\w/]+)(\.py)?(?:\.(\w+))?(?:\.\w+)?`", where)
        assert places or "recipes" in where, f"row {number}: {where}"
        for stem, _, name in places:
            file = next((f for base in ("seqjepa", ".") if (f := module_file(ROOT / base / stem))), None)
            if "/" in stem or name:
                assert file, f"row {number}: no file {stem}"
            if file and name:
                assert re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")), (
                    f"row {number}: {stem} has no {name}"
                )


def module_file(stem: Path) -> Path | None:
    return next((f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()), None)


def test_commits_that_are_cited_are_listed(texts: dict[str, str]) -> None:
    listed = FIDELITY.read_text(encoding="utf-8")
    cited = {hit for text in texts.values() for hit in re.findall(r"[\w.-]+/[\w.-]+@[0-9a-f]{7}\b", text)}
    assert "hafezgh/seq-jepa@73e0550" in cited
    assert [hit for hit in sorted(cited) if f"`{hit}`" not in listed] == []


def test_links_and_files_that_pages_name_exist() -> None:
    missing = []
    for page in docs_text.PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
        named = re.findall(
            r"(?<![\w/.@-])(?:tests|benchmarks|seqjepa|pipelines|shards|docs)/[\w/.-]+\.(?:py|md|png)\b", text
        )
        missing += [f"{page}: {link}" for link in links if not (ROOT / page).parent.joinpath(link).exists()]
        missing += [f"{page}: {name}" for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_modules_that_pages_name_have_what_they_are_said_to_have(texts: dict[str, str]) -> None:
    """Constants and private functions: `resize._crop`, `parameters.FROZEN`. Not keys by any name, as `meta.NAME`."""
    named = [
        (page, module, name)
        for page in docs_text.PAGES
        for module, name in re.findall(r"`([a-z_]+)\.(_\w+|[A-Z]{3,})`", (ROOT / page).read_text(encoding="utf-8"))
        if name != "NAME"
    ]
    have = {Path(file).stem: text for file, text in texts.items() if file.endswith(".py")}
    assert [one for one in named if not re.search(rf"\b{one[2]}\b", have.get(one[1], ""))] == []
    assert named
