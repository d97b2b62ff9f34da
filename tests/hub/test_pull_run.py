"""`seqjepa pull`, `seqjepa.load("hf://…")` and commands on an address: what comes back, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import READ_TOKEN, Act, Hub, Repo
from typer.testing import CliRunner

import cli
import seqjepa
from seqjepa import hub as hub_of_runs
from seqjepa.hub import run_folder
from shards.errors import FailureError

ADDRESS, REPO = "hf://me/rot-M3", "me/rot-M3"
OF_RUN = ("config.toml", "run.json", "metrics.jsonl", "results.json", "model.safetensors")
runner = CliRunner()


@pytest.fixture
def there(hub: Hub, run: Path) -> Repo:
    """The run on the hub, as a push leaves it."""
    files = {name: (run / name).read_bytes() for name in OF_RUN}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    hub.repos["model", REPO] = Repo(private=True)
    hub.repos["model", REPO].add(
        {**files, "SHA256SUMS": sums.encode(), "README.md": b"# card\n", ".gitattributes": b""}
    )
    return hub.repos["model", REPO]


def pulled(address: str, out: Path, *options: str, code: int = 0) -> str:
    result = runner.invoke(cli.seqjepa_app, ["pull", address, "--out", str(out), *options])
    assert result.exit_code == code, (result.output, result.exception)
    if code:
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith("error: ")
    return result.stderr if code else result.stdout


def changed(repo: Repo, **files: bytes | None) -> None:
    """A commit with other files; a dot in a name is written as two underscores, None removes it."""
    new = {name.replace("__", "."): data for name, data in files.items()}
    repo.add({name: data for name, data in {**repo.files(), **new}.items() if data is not None})


def test_what_comes_back_is_the_run(there: Repo, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "back"
    assert pulled(ADDRESS, out).startswith(f"{out}: {ADDRESS} at {there.head[:12]}")
    for name in OF_RUN:
        assert (out / name).read_bytes() == (run / name).read_bytes()
        assert not (out / name).is_symlink()
    assert {path.name for path in out.iterdir()} == {*OF_RUN, "SHA256SUMS", "README.md"}
    ours, theirs = seqjepa.load(run, "cpu"), seqjepa.load(out, "cpu")
    images = np.random.default_rng(0).integers(0, 255, (2, 20, 20, 3), np.uint8)
    assert torch.equal(ours.embed(images), theirs.embed(images))


def test_a_pull_goes_on_and_replaces_nothing(hub: Hub, there: Repo, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "back"
    hub.acts.append(Act("GET", "model.safetensors", 404, headers={"X-Error-Code": "EntryNotFound"}))
    assert "not complete" in pulled(ADDRESS, out, code=2)
    assert not out.exists()
    pulled(ADDRESS, out)
    (out / "model.safetensors").unlink()
    (out / "run.json").unlink()
    pulled(ADDRESS, out)
    assert (out / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    before = (out / "config.toml").stat().st_mtime_ns
    pulled(ADDRESS, out)
    assert (out / "config.toml").stat().st_mtime_ns == before
    (out / "config.toml").write_text("mine")
    assert "differs from the one on the hub" in pulled(ADDRESS, out, code=2)
    assert (out / "config.toml").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("…")
    assert "is not a run directory" in pulled(ADDRESS, foreign, code=2)
    assert "is a file" in pulled(ADDRESS, foreign / "thesis.tex", code=2)


def test_a_cut_body_is_asked_for_again(hub: Hub, there: Repo, run: Path, tmp_path: Path) -> None:
    hub.acts.append(Act("GET", "model.safetensors", cut=1_000_000))
    pulled(ADDRESS, tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert hub.loaded.count("model.safetensors") == 2


def test_an_address_is_a_run_for_every_command(hub: Hub, there: Repo, run: Path, tmp_path: Path, shards: Path) -> None:
    model = seqjepa.load(ADDRESS, "cpu")
    images = np.random.default_rng(0).integers(0, 255, (2, 20, 20, 3), np.uint8)
    assert torch.equal(seqjepa.load(run, "cpu").embed(images), model.embed(images))
    loaded = list(hub.loaded)
    seqjepa.load(f"{ADDRESS}@{there.head}", "cpu")
    assert hub.loaded == loaded
    told = runner.invoke(cli.seqjepa_app, ["report", ADDRESS, "--json"])
    assert json.loads(told.output)["runs"][0]["name"] == "rot-M3"
    args = ["evaluate", ADDRESS, "--shards", str(shards), "--probe-epochs", "1", "--m-val", "1", "--device", "cpu"]
    told = runner.invoke(cli.seqjepa_app, args)
    assert told.exit_code == 0, told.output
    folder = run_folder(ADDRESS)
    assert told.output.endswith(f"kept in {folder}/results.json\n")
    assert json.loads((folder / "results.json").read_text())["earlier"]
    out = tmp_path / "z.npy"
    embed = ["embed", ADDRESS, "--shards", str(shards), "--split", "val", "-o", str(out), "--device", "cpu"]
    told = runner.invoke(cli.seqjepa_app, embed)
    assert told.exit_code == 0, told.output
    assert len(np.load(out)) == 32
    source = next((tmp_path / "hf" / "hub").rglob("snapshots/*/results.json"))
    assert source.read_bytes() == (run / "results.json").read_bytes()  # huggingface_hub's own copy


def test_what_is_in_the_cache_needs_no_network(there: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(ADDRESS)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert run_folder(ADDRESS) == folder
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run_folder(Path(ADDRESS)) == folder
    with pytest.raises(FailureError, match="the hub cannot be reached, and it is not in the cache"):
        run_folder("hf://me/other")


def test_strangers_files_are_not_loaded(hub: Hub, there: Repo, tmp_path: Path) -> None:
    evil = {"../outside.json": b"x", "sub/model.safetensors": b"x", "model.bin": b"pickle", "state.pt": b"pickle"}
    there.add({**there.files(), **evil, "results-../../x-1-patch2.json": b"x", "code.py": b"import os"})
    out = tmp_path / "deep" / "back"
    text = pulled(ADDRESS, out)
    assert "left there: ../outside.json, code.py, model.bin" in text
    assert {path.name for path in out.iterdir()} == {*OF_RUN, "SHA256SUMS", "README.md"}
    assert not set(evil) & set(hub.loaded)
    assert list((tmp_path / "deep").iterdir()) == [out]


def test_what_is_no_run_is_refused(there: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "back"
    weights = there.files()["model.safetensors"]
    changed(there, model__safetensors=weights[:-1] + bytes([weights[-1] ^ 1]))
    assert "model.safetensors is damaged or was changed" in pulled(ADDRESS, out, code=1)
    changed(there, model__safetensors=None, pytorch_model__bin=b"pickle")
    text = pulled(ADDRESS, out, code=2)
    assert "it has no model.safetensors; pytorch_model.bin is a pickle, which is never opened" in text
    changed(there, model__safetensors=weights, SHA256SUMS=b"", run__json=b'{"kind": "other"}')
    assert "was not written by `seqjepa train`" in pulled(ADDRESS, out, code=2)
    changed(there, run__json=b"{" + b" " * (17 << 20))
    assert "run.json has 17,825,793 bytes, a run's has at most 16,777,216" in pulled(ADDRESS, out, code=2)
    changed(there, run__json=b"{}", config__toml=b"[model]\nwidth = 'wide'")
    pulled(ADDRESS, out, code=2)
    assert "pushed without --state" in pulled(ADDRESS, out, "--state", code=2)
    assert not out.exists()


def test_addresses_that_lead_nowhere(there: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "back"
    assert "hf://USER/REPO or" in pulled("me/rot-M3", out, code=2)
    assert "hf://USER/REPO or" in pulled("hf://datasets/me/rot-M3", out, code=2)
    assert "there is no such model, or it is private" in pulled("hf://me/other", out, code=2)
    assert "there is no such revision" in pulled(f"{ADDRESS}@v9", out, code=2)
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    pulled(ADDRESS, out)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(tmp_path / "none2"))
    assert "there is no such model, or it is private; see the name, `hf auth login`" in pulled(
        ADDRESS, tmp_path / "b", code=2
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_push_and_a_pull_of_state(hub: Hub, run: Path, tmp_path: Path, shards: Path) -> None:
    from test_push_run import pushed

    pushed(run, ADDRESS, "--state")
    out = tmp_path / "back"
    pulled(ADDRESS, out, "--state")
    assert (out / "state.pt").read_bytes() == (run / "state.pt").read_bytes()
    again = ["train", "--shards", str(shards), "--recipe", str(run / "config.toml"), "--out", str(out)]
    told = runner.invoke(cli.seqjepa_app, [*again, "--extend-epochs", "2", "--workers", "0"])
    assert told.exit_code == 0, told.output
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


def test_two_processes_may_fill_the_cache(there: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second finds the folder when it renames its own."""
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        shutil.copytree(self, target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    folder = hub_of_runs.run_folder(ADDRESS)
    assert [path.name for path in folder.parent.iterdir()] == ["rot-M3"]
