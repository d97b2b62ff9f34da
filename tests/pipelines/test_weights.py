"""Finding, checking and fetching the released files, with a small file and a server of our own."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.get.download import Patience
from pipelines.saliency import deepgaze_package
from pipelines.saliency.deepgaze_package import CENTRE_BIAS, DEEPGAZE_WEIGHTS, Asset, cache_folder, locate
from shards.errors import FailureError, UsageError

CONTENT = bytes(range(256)) * 10


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for asset in (DEEPGAZE_WEIGHTS, CENTRE_BIAS):
        monkeypatch.delenv(asset.variable, raising=False)


@pytest.fixture
def asset() -> Asset:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return replace(DEEPGAZE_WEIGHTS, size=len(CONTENT), sha256=sha256, url="http://127.0.0.1:9/none")


@pytest.fixture
def served(tmp_path: Path, asset: Asset) -> Iterator[tuple[Asset, Path]]:
    """The asset on a server, and the file that is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield replace(asset, url=f"http://127.0.0.1:{server.server_port}/{asset.name}"), folder / asset.name
        server.shutdown()
        thread.join()


def test_a_missing_file_is_named_with_its_size_and_where_to_get_it() -> None:
    with pytest.raises(UsageError) as caught:
        locate(DEEPGAZE_WEIGHTS)
    text = str(caught.value)
    assert "\n" not in text
    for part in (str(cache_folder() / "deepgaze2e.pth"), "419,676,716 bytes", DEEPGAZE_WEIGHTS.url, "--download"):
        assert part in text


def test_the_given_path_comes_before_the_variable_and_that_before_the_cache(
    tmp_path: Path, asset: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [cache_folder() / asset.name, tmp_path / "by_variable.pth", tmp_path / "given" / asset.name]
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    assert locate(asset) == places[0]
    monkeypatch.setenv(asset.variable, str(places[1]))
    assert locate(asset) == places[1]
    assert locate(asset, places[2]) == places[2]
    assert locate(asset, places[2].parent) == places[2]


def test_a_file_that_the_package_fetched_is_found(asset: Asset) -> None:
    path = cache_folder().parents[1] / "torch" / "hub" / "checkpoints" / asset.name
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert locate(asset) == path


def test_a_given_path_that_is_missing_is_not_replaced_by_a_download(tmp_path: Path, served: tuple[Asset, Path]) -> None:
    served[1].write_bytes(CONTENT)
    with pytest.raises(UsageError, match=r"nowhere\.pth does not exist"):
        locate(served[0], tmp_path / "nowhere.pth", download=True)


@pytest.mark.parametrize("found", [CONTENT[:-1], CONTENT + b"x"])
def test_another_size_is_refused(tmp_path: Path, asset: Asset, found: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(found)
    with pytest.raises(UsageError, match=rf"has {len(found):,} bytes, deepgaze2e.pth has 2,560"):
        locate(asset, tmp_path / "w.pth")


def test_another_content_is_refused_with_both_hashes(tmp_path: Path, asset: Asset) -> None:
    other = bytes(len(CONTENT))
    (tmp_path / "w.pth").write_bytes(other)
    with pytest.raises(UsageError) as caught:
        locate(asset, tmp_path / "w.pth")
    assert hashlib.sha256(other).hexdigest() in str(caught.value)
    assert asset.sha256 in str(caught.value)


def test_an_unchanged_file_is_hashed_once_and_a_changed_one_again(
    tmp_path: Path, asset: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hashed = tmp_path / "w.pth", []
    path.write_bytes(CONTENT)
    original = deepgaze_package.sha256_of_file
    monkeypatch.setattr(deepgaze_package, "sha256_of_file", lambda *args: hashed.append(1) or original(*args))
    locate(asset, path)
    locate(asset, path)
    assert len(hashed) == 1
    path.write_bytes(bytes(len(CONTENT)))
    with pytest.raises(UsageError, match="sha256"):
        locate(asset, path)
    assert len(hashed) == 2


@pytest.mark.parametrize("stamp", [b"", b"[]", b'{"state": 1}', b"\xff"])
def test_a_damaged_stamp_is_as_good_as_none(tmp_path: Path, asset: Asset, stamp: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(CONTENT)
    (tmp_path / ".w.pth.sha256.json").write_bytes(stamp)
    assert locate(asset, tmp_path / "w.pth") == tmp_path / "w.pth"


def test_a_download_lands_in_the_cache_whole_and_alone(served: tuple[Asset, Path]) -> None:
    asset, source = served
    source.write_bytes(CONTENT)
    with pytest.raises(UsageError, match="missing"):
        locate(asset)  # not asked for
    path = locate(asset, download=True)
    assert path == cache_folder() / asset.name
    assert path.read_bytes() == CONTENT
    assert [item.name for item in path.parent.iterdir()] == [asset.name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT + b"more", "2,564 bytes instead of 2,560"),
        (CONTENT[:100], "100 bytes instead of 2,560"),
        (bytes(len(CONTENT)), "sha256"),
        (None, "404"),
    ],
    ids=["too long", "too short", "wrong", "not there"],
)
def test_a_download_of_another_file_leaves_nothing(
    served: tuple[Asset, Path], content: bytes | None, message: str
) -> None:
    asset, source = served
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(FailureError, match=message):
        locate(asset, download=True)
    assert not list(cache_folder().iterdir())


def test_a_server_that_does_not_answer_is_a_failure(asset: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepgaze_package, "PATIENCE", Patience(tries=2, first=0.01))
    with pytest.raises(FailureError, match=r"could not be fetched .*; or name a copy with --weights or"):
        locate(asset, download=True)


def test_two_that_download_at_once_both_have_the_file(served: tuple[Asset, Path]) -> None:
    asset, source = served
    source.write_bytes(CONTENT)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: locate(asset, download=True), range(4)))
    assert set(found) == {cache_folder() / asset.name}
    assert found[0].read_bytes() == CONTENT
