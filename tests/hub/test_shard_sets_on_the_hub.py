"""`seqjepa-data push` and `pull`: the same shards come back, the card opens in `datasets`, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from hub_server import Act, Hub, Repo
from noise_shards import noise_shards
from typer.testing import CliRunner

import cli
from seqjepa.embedding.feature_sets import encoder_of_config, make_features
from seqjepa.recipes import load_recipe
from shards.metadata import info_to_bytes, read_info, with_readme
from shards.push import hub_push
from shards.push.hub_card import is_ours
from shards.reader import ShardSet
from shards.verify import verify

ADDRESS, REPO = "hf://datasets/me/noise", "me/noise"
NAMES = {"train-000000.tar", "val-000000.tar", "_meta/index-train.parquet", "_meta/index-val.parquet"}
SET = {*NAMES, "README.md", "_meta/dataset.json"}
runner = CliRunner()
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub


def called(*words: object, code: int = 0) -> str:
    """What the command prints; of a refusal its one line."""
    result = runner.invoke(cli.seqjepa_data_app, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    if code:
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith("error: ")
    return result.stderr if code else result.stdout


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_set_goes_and_comes_back(hub: Hub, shards: Path, tmp_path: Path) -> None:
    before = files_of(shards)
    assert "(private), commit" in called("push", shards, ADDRESS, "--licence", "mit")
    assert files_of(shards) == before
    there = hub.files("dataset", REPO)
    assert set(there) == {*SET, ".gitattributes"}
    assert {name: there[name] for name in NAMES} == {name: before[name] for name in NAMES}
    out = tmp_path / "back"
    called("pull", ADDRESS, "--out", out)
    assert files_of(out) == {name: there[name] for name in SET}
    assert verify(out).ok
    ours, theirs = ShardSet.open(shards), ShardSet.open(out)
    assert theirs.split("train").fingerprint() == ours.split("train").fingerprint()
    assert theirs.info.fingerprint == ours.info.fingerprint
    loaded = list(hub.loaded)
    called("pull", ADDRESS, "--out", out)
    assert hub.loaded == loaded
    sent = list(hub.sent)
    assert "0 files sent, 0 B; 6 were there" in called("push", shards, ADDRESS, "--licence", "mit")
    assert hub.sent == sent
    assert "0 files sent" in called("push", out, ADDRESS)  # with the licence that its card has


def test_the_card_is_the_sets_own_and_says_how_to_load_it(shards: Path, hub: Hub) -> None:
    told = json.loads(called("push", shards, ADDRESS, "--licence", "CC0-1.0", "--dry-run", "--json"))
    assert hub.asked == []
    assert set(told["files"]) == SET
    card, own = told["card"], (shards / "README.md").read_text()
    head, ours = (yaml.safe_load(text.split("---\n")[1]) for text in (card, own))
    assert head["license"] == "cc0-1.0"
    assert head["tags"] == ["seqjepa", "webdataset"]
    assert (head["configs"], head["pretty_name"]) == (ours["configs"], ours["pretty_name"])
    body = own.split("---\n", 2)[2].replace('"THIS_FOLDER"', '"me/noise"').strip()
    assert body in card
    assert "seqjepa-data pull hf://datasets/me/noise --out shards/noise" in card
    assert is_ours(card.encode())


def test_another_readme_changes_nothing_else(shards: Path) -> None:
    data, digest = (shards / "_meta" / "dataset.json").read_bytes(), "ab" * 32
    changed = with_readme(data, digest)
    assert with_readme(changed, read_info(shards).readme_sha256) == data
    rows = [(one, two) for one, two in zip(data.splitlines(), changed.splitlines(), strict=True) if one != two]
    assert [one.split(b'"')[1] for one, _ in rows] == [b"readme_sha256", b"checksum"]
    assert info_to_bytes(read_info(shards)) == data


def test_a_push_that_was_stopped_goes_on(hub: Hub, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_push, "AT_ONCE", 1)
    hub.acts.append(Act("POST", "objects/batch", 400, skip=1))
    assert "cannot be pushed" in called("push", shards, ADDRESS, code=1)
    assert len(hub.sent) == 1
    hub.acts.append(Act("POST", "/commit/", 500))
    called("push", shards, ADDRESS, code=1)
    assert set(hub.files("dataset", REPO)) == {".gitattributes"}  # nobody sees half a set
    called("push", shards, ADDRESS)
    sizes = [(shards / name).stat().st_size for name in NAMES]
    assert sorted(hub.sent) == sorted(sizes)  # each file once, over three attempts


def test_large_sets_take_several_commits_dataset_json_last(
    hub: Hub, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_push, "MOST_IN_COMMIT", 2)
    called("push", shards, ADDRESS)
    commits = [set(files) for files in hub.repos["dataset", REPO].commits.values()]
    assert len(commits) == 4
    assert ["_meta/dataset.json" in files for files in commits] == [False, False, False, True]


def test_another_set_takes_the_place_of_the_first(hub: Hub, shards: Path, tmp_path: Path) -> None:
    called("push", shards, ADDRESS)
    repo = hub.repos["dataset", REPO]
    repo.add({**repo.files(), "train-000001.tar": b"stale", "figure.png": b"png"})
    other = noise_shards(tmp_path / "other", seed=1)
    assert "removed train-000001.tar" in called("push", other, ADDRESS)
    assert set(repo.files()) == {*SET, ".gitattributes", "figure.png"}
    called("pull", ADDRESS, "--out", tmp_path / "back")
    assert verify(tmp_path / "back").ok
    assert "holds another set" in called("pull", ADDRESS, "--out", shutil.copytree(shards, tmp_path / "s"), code=2)


def test_an_edited_card_stays_and_the_set_stays_sound(hub: Hub, shards: Path, tmp_path: Path) -> None:
    called("push", shards, ADDRESS)
    repo = hub.repos["dataset", REPO]
    mine = repo.files()["README.md"] + b"\nCite us.\n"
    repo.add({**repo.files(), "README.md": mine})
    assert "its card was edited on the hub" in called("pull", ADDRESS, "--out", tmp_path / "one")
    assert (tmp_path / "one" / "README.md").read_bytes() == mine
    assert verify(tmp_path / "one").ok
    assert "was edited on the hub and stays" in called("push", shards, ADDRESS)
    assert repo.files()["README.md"] == mine
    info = json.loads(repo.files()["_meta/dataset.json"])
    assert info["readme_sha256"] == hashlib.sha256(mine).hexdigest()
    called("push", shards, ADDRESS, "--new-card")
    assert is_ours(repo.files()["README.md"])


def test_a_pull_that_was_stopped_goes_on(hub: Hub, shards: Path, tmp_path: Path) -> None:
    called("push", shards, ADDRESS)
    out = tmp_path / "back"
    hub.missing.add("val-000000.tar")
    assert "val-000000.tar is not there" in called("pull", ADDRESS, "--out", out, code=2)
    assert not (out / "_meta" / "dataset.json").exists()
    assert "unfinished set" in called("info", out, code=2)
    hub.missing.clear()
    hub.acts.append(Act("GET", "val-000000.tar", cut=1000))
    called("pull", ADDRESS, "--out", out)
    assert hub.loaded.count("train-000000.tar") == 1
    assert verify(out).ok
    assert {path.name for path in out.iterdir()} == {"README.md", "_meta", "train-000000.tar", "val-000000.tar"}


def test_chosen_splits_alone_are_loaded_and_make_a_set(hub: Hub, shards: Path, tmp_path: Path) -> None:
    called("push", shards, ADDRESS, "--licence", "mit")
    out = tmp_path / "val"
    called("pull", ADDRESS, "--split", "val", "--out", out)
    assert set(hub.loaded) == {"_meta/dataset.json", "README.md", "val-000000.tar", "_meta/index-val.parquet"}
    assert set(files_of(out)) == {"README.md", "_meta/dataset.json", "val-000000.tar", "_meta/index-val.parquet"}
    assert verify(out).ok
    ours, theirs = ShardSet.open(shards), ShardSet.open(out)
    assert list(theirs.splits) == ["val"]
    assert theirs.split("val").fingerprint() == ours.split("val").fingerprint()
    assert theirs.info.normalisation == ours.info.normalisation
    head = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    assert head["license"] == "mit"
    assert "train" not in str(head["configs"])
    loaded = list(hub.loaded)
    called("pull", ADDRESS, "--split", "val", "--out", out)
    assert hub.loaded == loaded
    assert "or other splits; choose another --out" in called("pull", ADDRESS, "--out", out, code=2)
    assert "has no split 'test'; there are: train, val" in called(
        "pull", ADDRESS, "--split", "test", "--out", tmp_path / "b", code=2
    )
    assert not (tmp_path / "b").exists()


def test_a_stopped_pull_of_all_does_not_become_a_set_of_one_split(hub: Hub, shards: Path, tmp_path: Path) -> None:
    called("push", shards, ADDRESS)
    out = tmp_path / "back"
    hub.missing.add("val-000000.tar")
    called("pull", ADDRESS, "--out", out, code=2)
    hub.missing.clear()
    assert "holds train-000000.tar of a pull of other splits" in called(
        "pull", ADDRESS, "--split", "val", "--out", out, code=2
    )
    called("pull", ADDRESS, "--out", out)
    assert verify(out).ok


def test_what_is_damaged_does_not_become_a_set(hub: Hub, shards: Path, tmp_path: Path) -> None:
    called("push", shards, ADDRESS)
    repo, out = hub.repos["dataset", REPO], tmp_path / "back"
    sound = repo.files()
    tar = bytearray(sound["val-000000.tar"])
    tar[2000] ^= 1
    repo.add({**sound, "val-000000.tar": bytes(tar)})
    assert "val-000000.tar is damaged" in called("pull", ADDRESS, "--out", out, code=1)
    assert not (out / "_meta" / "dataset.json").exists()
    repo.add(sound)
    called("pull", ADDRESS, "--out", out)
    assert verify(out).ok


def test_strangers_sets_are_read_by_the_names_that_the_format_has(hub: Hub, shards: Path, tmp_path: Path) -> None:
    called("push", shards, ADDRESS)
    repo, out = hub.repos["dataset", REPO], tmp_path / "deep" / "back"
    sound = repo.files()
    repo.add({**sound, "../evil.tar": b"x", "_meta/../../evil": b"x", "train.py": b"import os"})
    called("pull", ADDRESS, "--out", out)
    assert set(files_of(tmp_path / "deep")) == {f"back/{name}" for name in SET}
    broken = sound["_meta/dataset.json"].replace(b'"train-000000"', b'"../../000000"')
    repo.add({**sound, "_meta/dataset.json": broken})
    assert "is damaged (its checksum differs)" in called("pull", ADDRESS, "--out", tmp_path / "b", code=2)
    repo.add({**sound, "train-000000.tar": sound["train-000000.tar"] + b"\0" * 512})
    assert "bytes, at most" in called("pull", ADDRESS, "--out", tmp_path / "c", code=2)
    repo.add({name: data for name, data in sound.items() if name != "_meta/dataset.json"})
    assert "`seqjepa-data shard webdataset` reads" in called("pull", ADDRESS, "--out", tmp_path / "d", code=2)
    assert not any((tmp_path / name).exists() for name in "bcd")


def test_what_cannot_be_pushed_or_pulled_is_said(hub: Hub, shards: Path, tmp_path: Path) -> None:
    assert "hf://datasets/USER/REPO" in called("push", shards, "hf://models/me/noise", code=2)
    assert "is not a shard set" in called("push", tmp_path, ADDRESS, code=2)
    assert "is not a folder here" in called("push", "s3://bucket/noise", ADDRESS, code=2)
    bad = shutil.copytree(shards, tmp_path / "bad")
    data = bytearray((bad / "val-000000.tar").read_bytes())
    data[2000] ^= 1
    (bad / "val-000000.tar").write_bytes(data)
    assert "is not sound: val-000000.tar: sha256 differs" in called("push", bad, ADDRESS, code=1)
    assert hub.asked == []
    hub.repos["dataset", REPO] = Repo(private=True)
    hub.repos["dataset", REPO].add({"data/train.csv": b"a,b"})
    assert "holds data/train.csv and no _meta/dataset.json" in called("push", shards, ADDRESS, code=2)
    assert "no such data set" in called("pull", "hf://datasets/me/none", "--out", tmp_path / "o", code=2)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("…")
    called("push", shards, "hf://datasets/me/other")
    assert "is not a shard set" in called("pull", "hf://datasets/me/other", "--out", foreign, code=2)
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]


def test_a_set_of_features_takes_its_encoder_along(hub: Hub, shards: Path, tmp_path: Path) -> None:
    source, features = ShardSet.open(shards), tmp_path / "features"
    settings = ["model.backbone=resnet18", "model.width=0.0625", "model.stem=cifar"]
    make_features(source, features, encoder_of_config(load_recipe("", settings), source))
    called("push", features, ADDRESS, "--licence", "mit")
    called("pull", ADDRESS, "--out", tmp_path / "back")
    back = ShardSet.open(tmp_path / "back")
    assert verify(back.path).ok
    assert back.read_encoder() == ShardSet.open(features).read_encoder()
