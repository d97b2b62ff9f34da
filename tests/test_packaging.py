"""What is said of versions, licences and files in more than one place is the same everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.saliency.deepgaze_package import CENTRE_BIAS, COMMIT, DEEPGAZE_WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = sorted((ROOT / "benchmarks").glob("requirements*.txt"))


def pins(path: Path) -> dict[str, str]:
    """Package, spelled as registries compare names, → the version it is pinned to."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s#;]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_benchmarks_pin_what_the_constraints_pin(path: Path) -> None:
    """Installed together, two versions of one package would be refused."""
    constraints, wanted = pins(ROOT / "constraints.txt"), pins(path)
    shared = set(constraints) & set(wanted)
    assert {"torch", "torchvision"} <= shared
    assert {name: wanted[name] for name in shared} == {name: constraints[name] for name in shared}


def test_the_constraints_cover_what_the_package_needs() -> None:
    constraints = pins(ROOT / "constraints.txt")
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"], *(line for extra in extras if extra != "saliency" for line in extras[extra])]
    needed = [line for line in needed if not line.startswith("seqjepa[")]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~ ]", line)[0]).lower() for line in needed}
    assert names - set(constraints) == set()


@pytest.mark.parametrize(
    "known",
    [
        "opencv-python==4.10.0.82",  # compiled for NumPy 1: `import cv2` fails
        "pillow==10.0.1",  # ImageFont.load_default takes no size: no preview
        "typer==0.15.3",  # with click 8.2, which it allows, --help is a traceback
        "typer==0.21.0",  # --help has \[required]
        "huggingface-hub==0.30.0",  # a hub at HF_ENDPOINT set by a program, a 503
        "huggingface-hub==1.16.0",  # a body that was cut is not asked for again
        "onnxscript==0.5.7",  # torch 2.11 asks for a module that it lacks
        "onnxscript==0.6.2",  # prints to standard output, before the JSON of `export --json`
    ],
)
def test_versions_that_fail_are_not_allowed(known: str) -> None:
    name, version = known.split("==")
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    needed = [found for found in map(Requirement, lines) if canonicalize_name(found.name) == name]
    assert needed
    assert not any(version in found.specifier for found in needed)


def test_the_extra_for_saliency_is_the_commit_that_was_tested() -> None:
    assert PROJECT["optional-dependencies"]["saliency"] == [
        f"deepgaze_pytorch @ git+https://github.com/matthias-k/DeepGaze@{COMMIT}"
    ]
    assert not [line for line in PROJECT["optional-dependencies"]["dev"] if "deepgaze" in line]


def test_licence() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License\n")
    assert "the seqjepa authors" in text
    assert PROJECT["license"] == "MIT"
    assert PROJECT["license-files"] == ["LICENSE"]


def test_citation_names_the_paper_and_this_version() -> None:
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cited)
    assert (cited["version"], cited["license"], cited["title"]) == (PROJECT["version"], "MIT", PROJECT["name"])
    paper = cited["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Ghaemi", "Muller", "Bakhtiari"]
    assert paper["url"] == "https://arxiv.org/abs/2505.03176"
    assert paper["year"] == 2025


def test_data_md_has_the_sums_that_code_checks() -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for asset in (DEEPGAZE_WEIGHTS, CENTRE_BIAS):
        assert f"`{asset.name}`" in text
        assert f"{asset.size:,} bytes" in text
        assert f"`{asset.sha256}`" in text
    assert COMMIT.startswith(re.findall(r"DeepGaze\) at `([0-9a-f]{7})`", text)[0])


def test_data_md_has_torchvisions_sums() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    from torchvision.datasets.imagenet import ARCHIVE_META

    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    files = [*datasets.STL10.train_list, *datasets.STL10.test_list, *ARCHIVE_META.values()]
    files += [("stl10_binary.tar.gz", datasets.STL10.tgz_md5), ("cifar-100-python.tar.gz", datasets.CIFAR100.tgz_md5)]
    for name, md5 in files:
        assert name in text
        assert f"`{md5}`" in text
    assert datasets.STL10.url in text
    assert datasets.CIFAR100.url in text
