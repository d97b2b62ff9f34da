"""`seqjepa push`: the bytes that arrive, the card, what is sent twice, and what is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from hub_server import READ_TOKEN, Act, Hub, Repo
from huggingface_hub import ModelCard
from typer.testing import CliRunner

import cli
from shards.push.hub_card import is_ours

ADDRESS, REPO = "hf://me/rot-M3", "me/rot-M3"
FILES = {"README.md", "SHA256SUMS", "config.toml", "run.json", "metrics.jsonl", "results.json", "model.safetensors"}
runner = CliRunner()
# huggingface_hub hands httpx2 its files in a way that it is to give up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def pushed(run: Path, *options: str, code: int = 0) -> str:
    """What `seqjepa push` prints; of a refusal its one line."""
    result = runner.invoke(cli.seqjepa_app, ["push", str(run), *(options or (ADDRESS,))])
    assert result.exit_code == code, (result.output, result.exception)
    if code:
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith("error: ")
    return result.stderr if code else result.stdout


def head_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_run_arrives_as_it_is_and_is_not_sent_twice(hub: Hub, run: Path) -> None:
    assert "(private), commit" in pushed(run)
    there = hub.files("model", REPO)
    assert set(there) == {*FILES, ".gitattributes"}
    for name in FILES - {"README.md", "SHA256SUMS"}:
        assert there[name] == (run / name).read_bytes(), name
    sums = dict(line.split("  ")[::-1] for line in there["SHA256SUMS"].decode().splitlines())
    expected = FILES - {"README.md", "SHA256SUMS"}
    assert sums == {name: hashlib.sha256(there[name]).hexdigest() for name in expected}
    assert hub.repos["model", REPO].private
    assert hub.messages == ["3die-rot-M3, 1 of 1 epochs"]
    before = list(hub.sent)
    assert "0 files sent, 0 B; 7 were there" in pushed(run)
    assert hub.sent == before
    assert len(hub.repos["model", REPO].commits) == 2


def test_the_card_has_the_runs_numbers(run: Path) -> None:
    told = json.loads(pushed(run, ADDRESS, "--licence", "CC-BY-4.0", "--dry-run", "--json"))
    card, results = told["card"], json.loads((run / "results.json").read_text())
    assert set(told["files"]) == FILES
    head = head_of(card)
    assert head["license"] == "cc-by-4.0"
    assert head["library_name"] == "seqjepa"
    assert {"seq-jepa", "arxiv:2505.03176"} <= set(head["tags"])
    found = ModelCard(card).data.eval_results or []
    values = {result.metric_name: result.metric_value for result in found}
    assert values["top-1, z"] == results["trained"]["top1_z"]
    assert values["R² relative rotation, avg"] == results["trained"]["r2_rel_rot_avg"]
    low, high = results["trained"]["intervals"]["top1_z"]
    before = results["untrained"]["intervals"]["top1_z"]
    row = (
        f"| top-1, z | {results['trained']['top1_z']:.3f} [{low:.3f}, {high:.3f}] "
        f"| {results['untrained']['top1_z']:.3f} [{before[0]:.3f}, {before[1]:.3f}] |"
    )
    assert row in card
    run_json = json.loads((run / "run.json").read_text())
    for text in (run_json["shards"]["train"], 'seqjepa.load("hf://me/rot-M3")', "`model.width=0.125`", "16 training"):
        assert text in card
    assert str(run.parent) not in card


def test_a_card_of_pretrained_weights_names_no_folder(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    settings, told = (other / "config.toml").read_text(), json.loads((other / "run.json").read_text())
    given = tmp_path / "dino.pth"
    (other / "config.toml").write_text(re.sub('pretrained = ""', f'pretrained = "{given}"', settings))
    (other / "run.json").write_text(json.dumps({**told, "pretrained": {"weights": str(given), "sha256": "ab" * 32}}))
    card = json.loads(pushed(other, ADDRESS, "--dry-run", "--json"))["card"]
    assert f"**Encoder** resnet18, width 0.125, from the weights of dino.pth (sha256 `{'ab' * 32}`)" in card
    assert "`model.pretrained=dino.pth`" in card
    assert str(tmp_path) not in card


def test_a_card_invents_nothing(run: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(run, tmp_path / "bare")
    (bare / "results.json").unlink()
    card = json.loads(pushed(bare, ADDRESS, "--dry-run", "--json"))["card"]
    assert "The run was not evaluated when it was pushed." in card
    assert "**Licence** not stated" in card
    assert not {"model-index", "license"} & set(head_of(card))
    results = json.loads((run / "results.json").read_text())
    results["trained"]["protocol"]["trained_epochs"] = 0.5
    (bare / "results.json").write_text(json.dumps({"trained": results["trained"]}))
    card = json.loads(pushed(bare, ADDRESS, "--dry-run", "--json"))["card"]
    assert "evaluated after 0.5 epochs; the weights here have 1 behind them" in card
    assert "The untrained weights were not evaluated" in card
    assert "model-index" not in head_of(card)


def test_a_dry_run_asks_the_hub_nothing(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    text = pushed(run, ADDRESS, "--dry-run")
    assert "7 files would go to hf://me/rot-M3" in text
    assert hub.asked == []


def test_an_edited_card_stays_until_a_new_one_is_asked_for(hub: Hub, run: Path) -> None:
    pushed(run)
    repo = hub.repos["model", REPO]
    card = repo.files()["README.md"]
    assert is_ours(card)
    repo.add({**repo.files(), "README.md": card.replace(b"# rot-M3", b"# My best run"), "figure.png": b"png"})
    assert "was edited on the hub and stays" in pushed(run, ADDRESS, "--message", "again")
    assert b"# My best run" in repo.files()["README.md"]
    pushed(run, ADDRESS, "--new-card")
    assert repo.files()["README.md"] == card
    assert repo.files()["figure.png"] == b"png"


def test_a_run_that_replaces_another_one_says_which(hub: Hub, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    pushed(run)
    pushed(run, ADDRESS, "--state")
    assert not caplog.messages
    repo = hub.repos["model", REPO]
    repo.add({**repo.files(), "config.toml": (run / "config.toml").read_bytes().replace(b"seed = ", b"seed = 4")})
    pushed(run)
    repo.add({**repo.files(), "config.toml": b"\xff"})
    pushed(run)
    now, history = (
        "hf://me/rot-M3: 3die-rot-M3, method seq_jepa, seed 42, on noise",
        "stays in the history: hf://me/rot-M3@",
    )
    another, unread = caplog.messages
    assert re.match(
        rf"{now} .* replaces 3die-rot-M3, method seq_jepa, seed 442, on noise .*, which {history}\w{{12}}$", another
    )
    assert re.match(rf"{now} .* replaces a run that cannot be read, which {history}\w{{12}}$", unread)


def test_state_comes_and_goes_by_option(hub: Hub, run: Path) -> None:
    pushed(run, ADDRESS, "--state")
    assert hub.files("model", REPO)["state.pt"] == (run / "state.pt").read_bytes()
    assert "removed state.pt" in pushed(run)
    assert "state.pt" not in hub.files("model", REPO)


def test_a_push_that_was_cut_goes_on(hub: Hub, run: Path) -> None:
    hub.acts.append(Act("POST", "/commit/", 500))
    assert "cannot be pushed" in pushed(run, code=1)
    assert set(hub.files("model", REPO)) == {".gitattributes"}
    sent = list(hub.sent)
    pushed(run)
    assert hub.sent == sent  # the weights had arrived
    assert hub.files("model", REPO)["model.safetensors"] == (run / "model.safetensors").read_bytes()


def test_a_busy_hub_is_asked_again(hub: Hub, run: Path) -> None:
    hub.acts += [Act("POST", "/preupload/", 503), Act("PUT", "lfs/", 500), Act("POST", "objects/batch", 429)]
    pushed(run)
    assert set(hub.files("model", REPO)) == {*FILES, ".gitattributes"}


@pytest.mark.parametrize(
    ("act", "said", "code"),
    [
        (Act("POST", "repos/create", 401), "you are not logged in, or the token is not valid", 2),
        (Act("POST", "repos/create", 403), "no permission", 2),
        (Act("POST", "/commit/", 409), "it was changed there meanwhile", 1),
        (Act("POST", "/commit/", 412), "it was changed there meanwhile", 1),
        (Act("POST", "/commit/", 429), "the hub asks for fewer requests", 1),
        (Act("POST", "/commit/", 502), "cannot be pushed", 1),
    ],
)
def test_refusals_are_one_line(hub: Hub, run: Path, act: Act, said: str, code: int) -> None:
    hub.acts.append(act)
    assert said in pushed(run, code=code)


def test_what_cannot_be_pushed_is_said_before_anything_is_sent(
    hub: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "hf://USER/REPO" in pushed(run, "me/rot-M3", code=2)
    assert "hf://USER/REPO" in pushed(run, "hf://datasets/me/rot-M3", code=2)
    assert "is not a folder here" in pushed(Path("hf://me/x"), ADDRESS, code=2)
    assert "a push goes to the main branch" in pushed(run, "hf://me/rot-M3@v1", code=2)
    assert "the hub knows cc-by-4.0" in pushed(run, ADDRESS, "--licence", "cc-by-4", code=2)
    assert "the run has not begun" in pushed(tmp_path, code=2)
    assert hub.asked == []
    assert "no permission" in pushed(run, "hf://other/rot-M3", code=2)
    hub.repos["model", "me/else"] = Repo(private=True)
    hub.repos["model", "me/else"].add({"pytorch_model.bin": b"pickle", "README.md": b"# mine"})
    assert "holds pytorch_model.bin and no run.json" in pushed(run, "hf://me/else", code=2)
    hub.repos["model", "me/open"] = Repo(private=False)
    hub.repos["model", "me/open"].add({".gitattributes": b""})
    assert "me/open is public: add --public" in pushed(run, "hf://me/open", code=2)
    pushed(run, "hf://me/open", "--public")
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    assert "no permission" in pushed(run, "hf://me/new", code=2)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(tmp_path / "none2"))
    assert "you are not logged in; `hf auth login`" in pushed(run, code=2)


def test_what_the_hub_passes_over_is_said(hub: Hub, run: Path) -> None:
    hub.ignored.add("metrics.jsonl")
    assert "metrics.jsonl was pushed and is not there" in pushed(run, code=1)


def test_damaged_weights_are_not_pushed(hub: Hub, run: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(run, tmp_path / "bad")
    data = bytearray((bad / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (bad / "model.safetensors").write_bytes(data)
    assert "is damaged" in pushed(bad, code=1)
    assert hub.asked == []


def test_without_a_network_one_line(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in pushed(run, code=1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "cannot be reached" in pushed(run, code=1)
