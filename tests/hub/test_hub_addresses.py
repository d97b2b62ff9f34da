"""hf:// addresses against a loopback server: what is loaded, what is not, and what is said when it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, REPO, Act, Hub, serving, use_hub

from shards.errors import FailureError, FormatError, UsageError
from shards.stores.hub import is_hub_address, open_hub

FILES = ("meta/info.json", "meta/deep/one.json", "data/a.parquet", "videos/b.mp4", "README.md")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in FILES:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text(f"this is {name}")
    with serving(tmp_path / "set") as server:
        use_hub(server, tmp_path, monkeypatch)
        yield server


def test_only_what_is_needed_is_loaded_and_only_once(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    for address in (f"hf://datasets/{REPO}", f"hf://{REPO}@main", f"hf://{REPO}@{COMMIT}"):
        assert is_hub_address(address)
        found = open_hub(address, ["meta/*"])
        assert (str(found.address), found.repo, found.commit) == (f"hf://datasets/{REPO}", REPO, COMMIT)
    assert sorted(hub.loaded) == ["meta/deep/one.json", "meta/info.json"]
    assert not (found.root / "data/a.parquet").exists()
    found.fetch(["data/a.parquet", "meta/info.json", "data/a.parquet"])
    found.fetch(["data/a.parquet"])
    assert sorted(hub.loaded) == ["data/a.parquet", "meta/deep/one.json", "meta/info.json"]
    assert (found.root / "data/a.parquet").read_text() == "this is data/a.parquet"
    assert capfd.readouterr().err == ""  # no bar where there is no terminal


def test_what_the_hub_refuses_is_said(hub: Hub) -> None:
    for address in ("hf://me", "hf://models/me/robots", "hf:me/robots", f"hf://{REPO}@", "hf://../x/y"):
        with pytest.raises(UsageError, match="hf://datasets/USER/REPO or"):
            open_hub(address, ["meta/*"])
    with pytest.raises(UsageError, match="no such data set, or it is private"):
        open_hub("hf://me/other", ["meta/*"])
    with pytest.raises(UsageError, match="there is no such revision"):
        open_hub(f"hf://{REPO}@nowhere", ["meta/*"])
    found = open_hub(f"hf://{REPO}", ["meta/*"])
    hub.missing.add("videos/b.mp4")
    with pytest.raises(FormatError, match=r"videos/b\.mp4 is not there: the data set on the hub is not complete"):
        found.fetch(["videos/b.mp4"])


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (429, "", FailureError, "the hub asks for fewer requests; wait some minutes"),
        (500, "", FailureError, "cannot be loaded"),
        (403, "", UsageError, "no permission for that; take a token that may read it"),
        (403, "GatedRepo", UsageError, "its owner lets in who asked for it"),
        (403, "DisabledRepo", UsageError, "the hub has closed it"),
    ],
)
def test_what_the_hub_answers_is_not_that_it_cannot_be_reached(
    hub: Hub, status: int, code: str, kind: type[Exception], said: str
) -> None:
    message = "Access to this resource is disabled." if code == "DisabledRepo" else "no"
    headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
    hub.acts += [Act("GET", REPO, status, headers=headers) for _ in range(9)]
    with pytest.raises(kind, match=said):
        open_hub(f"hf://{REPO}", ["meta/*"])


def test_without_a_network_the_cache_will_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    open_hub(f"hf://{REPO}", ["meta/*"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = open_hub(f"hf://{REPO}", ["meta/*"])
    assert (found.root / "meta/info.json").exists()
    with pytest.raises(FailureError, match=r"data/a\.parquet: the hub cannot be reached, and it is not in the cache"):
        found.fetch(["data/a.parquet"])
    with pytest.raises(FailureError, match="cannot be reached"):
        open_hub("hf://me/other", ["meta/*"])
