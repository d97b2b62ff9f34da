"""Files by name: a new one, or one of ours before; everything else stays as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from shard_sets import build
from typer.testing import CliRunner

from cli import seqjepa_data_app
from shards.errors import UsageError
from shards.machine.files import OwnFile, refuse_foreign, write_own


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "set"
    build(folder)
    return folder


def preview(shards: Path, out: Path) -> tuple[int, str]:
    done = CliRunner().invoke(seqjepa_data_app, ["preview", str(shards), "--out", str(out), "--samples", "2"])
    assert "Traceback" not in done.output
    return done.exit_code, done.stderr


def test_a_preview_replaces_a_preview(views: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert preview(views, out) == (0, "")
    first = out.read_bytes()
    with Image.open(out) as image:
        assert image.info["Software"] == "seqjepa-data preview"
    assert preview(views, out) == (0, "")
    assert out.read_bytes() == first
    assert os.listdir(tmp_path) == ["sheet.png"]


def test_a_preview_replaces_nothing_else(views: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(photo)
    (tmp_path / "thesis").write_text("seqjepa-data preview", encoding="utf-8")
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.png").symlink_to(photo)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "folder.png").mkdir()
    build(tmp_path / "set")
    os.mkfifo(tmp_path / "pipe")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name, said in {
        "photo.png": "was not made by seqjepa-data preview; remove it or choose another name",
        "thesis": "was not made by seqjepa-data preview",
        "empty.png": "was not made by seqjepa-data preview",
        "pipe": "was not made by seqjepa-data preview",
        "link.png": f"is a link to {photo}",
        "dangling.png": "is a link to",
        "folder.png": "is a folder; give the name of a file",
        "set/sheet.png": "set is a shard set, which holds nothing else; choose another place for sheet.png",
        "missing/sheet.png": "is not a folder; make it",
        "photo.png/sheet.png": "photo.png is not a folder",
    }.items():
        code, stderr = preview(views, tmp_path / name)
        assert (code, stderr.count("\n")) == (2, 1), stderr
        assert said in stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert not (tmp_path / "elsewhere.png").exists()


def test_a_preview_is_a_png_by_its_name_too(views: Path, tmp_path: Path) -> None:
    assert preview(views, tmp_path / "SHEET.PNG") == (0, "")
    assert preview(views, tmp_path / "sheet") == (0, "")
    for name in ("x.jpg", "x.png.webp"):
        code, stderr = preview(views, tmp_path / name)
        assert (code, stderr.count("\n")) == (2, 1)
        assert "the picture is a PNG; give a name as x.png" in stderr
    code, stderr = preview(views, Path("s3://bucket/sheet.png"))
    assert code == 2
    assert "--out s3://bucket/sheet.png: this command writes to a folder on this machine" in stderr
    assert sorted(os.listdir(tmp_path)) == ["SHEET.PNG", "sheet"]


def test_all_or_none(tmp_path: Path) -> None:
    mine, other = (OwnFile(tmp_path / name, b"signed", b"signed", "us") for name in ("a", "b"))
    other.path.write_bytes(b"theirs")
    with pytest.raises(UsageError, match="was not made by us"):
        write_own([mine, other])
    assert not mine.path.exists()
    with pytest.raises(UsageError, match="the same"):
        write_own([mine, mine])
    write_own([mine])
    write_own([mine])
    assert mine.path.read_bytes() == b"signed"


def test_two_commands_write_one_file_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (OwnFile(tmp_path / "a", data, b"us", "us") for data in (b"the first of us", b"us"))
    real = os.replace

    def late(*places: object) -> None:
        monkeypatch.setattr(os, "replace", real)
        write_own([second])
        real(*places)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", late)
    write_own([first])
    assert first.path.read_bytes() == first.data
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(views: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, stderr = preview(views, tmp_path / "sheet.png")
    assert code == 2
    assert stderr == f"error: cannot use {tmp_path / 'sheet.png'}: Permission denied; give another path\n"


def test_a_failed_write_names_no_temporary_file(views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: object, *arguments: object, **options: object) -> int:
        if ".tmp-" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    code, stderr = preview(views, tmp_path / "sheet.png")
    assert (code, stderr) == (2, f"error: cannot use {tmp_path / 'sheet.png'}: Permission denied; give another path\n")


def test_a_folder_that_may_not_be_written_to_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anywhere
    with pytest.raises(UsageError, match=r"may not be written to; choose another place for a\.html"):
        refuse_foreign(tmp_path / "a.html", b"", "somebody")
    assert not list(tmp_path.iterdir())
