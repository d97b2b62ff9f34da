"""A source in an archive is the source in a folder: the same pictures in the same splits and classes, or an error."""

from __future__ import annotations

import builtins
import io
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from nasty_trees import UnflaggedInfo, make_tar, make_tree, make_zip
from small_images import encoded, make_folder, picture

from pipelines.sources import open_source
from pipelines.sources.cifar100 import read_cifar100
from shards.errors import FormatError, UsageError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}

Content = Counter[tuple[str, str | None, bytes]]


def content(path: Path) -> Content:
    """Multiset of (split, class, pixels). Where a link leads nowhere in a folder, it may leave the archive in one."""
    source = open_source("folder", path)
    classes, found = (*source.classes, None), []
    for record in source.records():
        try:
            pixels = source.read(record).tobytes()
        except ValueError as error:
            pixels = re.sub("nowhere|the archive", "…", str(error).replace("leads", "leaves")).encode()
        found.append((record.split, classes[record.label], pixels))
    return Counter(found)


def others(path: Path) -> str:
    return str(open_source("folder", path).others)


def archives(folder: Path, out: Path, seed: int) -> list[Path]:
    """Every kind that can hold these names."""
    rng = np.random.default_rng(seed)
    made = []
    for name, kind in FORMATS.items():
        try:
            made.append(make_tar(folder, out / f"{name}.tar", kind, rng))
        except ValueError:  # too long for ustar
            assert kind == tarfile.USTAR_FORMAT
    for flagged in (True, False):
        made.append(make_zip(folder, out / f"{flagged}.zip", rng, flagged))
    return made


def refusal(path: Path) -> str:
    """Why a source is refused; "" for one that is read. Two classes may have one name in two Unicode spellings."""
    try:
        open_source("folder", path).records()
    except FormatError as error:
        if "in two spellings (Unicode NFC and NFD)" not in str(error):
            raise
        return str(error)
    return ""


def check_tree(tmp_path: Path, seed: int) -> None:
    """Every archive of a tree holds what the tree holds, or is refused in the same words."""
    folder = make_tree(tmp_path / f"f{seed}", seed)
    refused = refusal(folder)
    expected = Counter() if refused else content(folder)
    assert refused or expected.total() >= 2
    for path in archives(folder, tmp_path, seed):
        where = f"seed {seed}, {path.name}"
        assert refusal(path) == refused, where
        if not refused:
            assert content(path) == expected, where
            assert others(path) == others(folder)
        path.unlink()
    shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(8))
def test_generated_trees(tmp_path: Path, seed: int) -> None:
    check_tree(tmp_path, seed)


@pytest.mark.slow
def test_many_generated_trees(tmp_path: Path) -> None:
    for seed in range(100, 500):
        check_tree(tmp_path, seed)


def test_generated_trees_hold_what_they_should(tmp_path: Path) -> None:
    """Links lead to more images than there are files; loops and links to nowhere are counted and named."""
    lines, more = [], 0
    for seed in range(12):
        folder = make_tree(tmp_path / str(seed), seed)
        inodes = {file.lstat().st_ino for file in folder.rglob("*") if not file.is_symlink() and file.is_file()}
        more += content(folder).total() > len(inodes)
        lines.append(others(folder))
    assert more >= 4
    assert any("link to itself (" in line for line in lines)
    assert any("that leads nowhere (" in line for line in lines)
    assert any("1 .gif" in line for line in lines)


def test_a_tar_of_gnu_tar(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "f", 3)
    for kind in ("gnu", "posix"):
        command = ["tar", f"--format={kind}", "-C", str(folder), "-cf", str(tmp_path / "t.tar"), "."]
        subprocess.run(command, check=True)
        assert content(tmp_path / "t.tar") == content(folder)


def member(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(data)
    tar.addfile(info, io.BytesIO(data))


def png(seed: int) -> bytes:
    return encoded(picture(seed, 2, 3))


def pictures(path: Path) -> dict[str, bytes]:
    """Pixels by name; for what cannot be read, why."""
    source, found = open_source("folder", path), {}
    for record in source.records():
        try:
            found[record.name] = source.read(record).tobytes()
        except ValueError as error:
            found[record.name] = str(error)
    return found


def pixels(seed: int) -> bytes:
    return picture(seed, 2, 3).tobytes()


SYMBOLIC, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


def test_links_are_what_tar_makes_of_them(tmp_path: Path) -> None:
    """The oracle is `tar -x`: of links to what is overwritten later, of links to links, of folders behind links."""
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        member(tar, "a/early.png", kind=SYMBOLIC, target="../b/1.png")  # before its target
        member(tar, "b/1.png", png(1))
        member(tar, "b/2.png", png(2))
        member(tar, "a/hard.png", kind=HARD, target="b/1.png")
        member(tar, "b/1.png", png(3))  # a/hard.png keeps what it had, a/early.png does not
        member(tar, "a/chain.png", kind=SYMBOLIC, target="early.png")
        member(tar, "a/shared.png", kind=HARD, target="a/chain.png")  # the link itself has two names
        member(tar, "c", kind=SYMBOLIC, target="b")
        member(tar, "c/4.png", png(4))  # through the link
        member(tar, "d/e/up.png", kind=SYMBOLIC, target=".././../c/2.png")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-C", str(unpacked), "-xf", str(tmp_path / "t.tar")], check=True)
    found = pictures(tmp_path / "t.tar")
    assert found == pictures(unpacked)
    assert found["a/hard.png"] == pixels(1)
    assert {found[name] for name in ("a/early.png", "a/chain.png", "a/shared.png", "b/1.png")} == {pixels(3)}
    assert found["c/4.png"] == found["b/4.png"] == pixels(4)
    assert found["d/e/up.png"] == pixels(2)


def test_links_that_lead_to_nothing(tmp_path: Path) -> None:
    """Images among them are bad images; the rest is counted and named."""
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        member(tar, "a/1.png", png(1))
        member(tar, "a/gone.png", kind=SYMBOLIC, target="missing.png")
        member(tar, "a/out.png", kind=SYMBOLIC, target="../../other/1.png")
        member(tar, "a/absolute.png", kind=SYMBOLIC, target="/etc/1.png")
        member(tar, "a/hard.png", kind=HARD, target="a/never.png")
        member(tar, "a/loop.png", kind=SYMBOLIC, target="pool.png")
        member(tar, "a/pool.png", kind=SYMBOLIC, target="loop.png")
        member(tar, "latest", kind=SYMBOLIC, target="latest")
        member(tar, "a/up", kind=SYMBOLIC, target="..")
        member(tar, "b", kind=SYMBOLIC, target="../b")
        member(tar, "pipe", kind=tarfile.FIFOTYPE)
    assert pictures(tmp_path / "t.tar") == {
        "1.png": pixels(1),
        "gone.png": "a link that leads nowhere",
        "out.png": "a link that leaves the archive",
        "absolute.png": "a link that leaves the archive",
        "hard.png": "a link that leads nowhere",
    }
    assert others(tmp_path / "t.tar") == (
        "6 files were left out: 3 links to themselves (latest, a/loop.png, a/pool.png), 1 link that leaves the archive "
        "(b), 1 fifo (pipe), 1 link to a folder that holds it (a/up)"
    )


def test_a_hard_link_may_lie_before_its_target(tmp_path: Path) -> None:
    """`tar -x` cannot make these; what they mean is clear."""
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        member(tar, "a/1.png", kind=HARD, target="./a/2.png")
        member(tar, "a/2.png", kind=HARD, target="a/3.png")
        member(tar, "a/3.png", png(3))
    assert set(pictures(tmp_path / "t.tar").values()) == {pixels(3)}


def test_the_same_links_in_a_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["a/1.png"])
    for name, target in {"a/gone.png": "missing", "a/loop.png": "loop.png", "latest": "latest", "a/up": ".."}.items():
        os.symlink(target, folder / name)
    os.mkfifo(folder / "a/pipe.png")
    found = pictures(folder)
    assert found.keys() == {"1.png", "gone.png"}
    assert found["gone.png"] == "a link that leads nowhere"
    assert others(folder).startswith("4 files were left out: 2 links to themselves (latest, a/loop.png), ")


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0", "gnu"])
def test_sparse_files_are_whole(tmp_path: Path, version: str) -> None:
    """Written by GNU tar, holes and all; more pieces than one header holds."""
    folder = make_folder(tmp_path / "f", ["a/1.png"])
    image = np.zeros((300, 400, 3), np.uint8)
    image[::30, :40] = picture(5, 10, 40)
    with (folder / "a/2.bmp").open("wb") as file:
        data = encoded(image, "bmp")
        for at in range(0, len(data), 4096):
            file.seek(at)
            if any(block := data[at : at + 4096]):
                file.write(block)
        file.truncate(len(data))
    options = ["--format=gnu"] if version == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    path = tmp_path / "t.tar"
    subprocess.run(
        ["tar", *options, "--hole-detection=raw", "-S", "-C", str(folder), "-cf", str(path), "."], check=True
    )
    assert path.stat().st_size < len(data)  # there are holes
    assert pictures(path)["2.bmp"] == image.tobytes()
    assert pictures(path) == pictures(folder)


def test_a_second_archive_behind_the_first_is_read(tmp_path: Path) -> None:
    parts = []
    for number in (1, 2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            member(tar, f"a/{number}.png", png(number))
        parts.append((tmp_path / f"{number}.tar").read_bytes())
    (tmp_path / "both.tar").write_bytes(b"".join(parts))
    assert pictures(tmp_path / "both.tar") == {"1.png": pixels(1), "2.png": pixels(2)}
    (tmp_path / "both.tar").write_bytes(parts[0] + b"something else")
    assert pictures(tmp_path / "both.tar") == {"1.png": pixels(1)}
    assert others(tmp_path / "both.tar") == "what follows the end of the tar is no tar, and was not read"
    (tmp_path / "both.tar").write_bytes(parts[0] + parts[1][:700])
    with pytest.raises(FormatError, match="cut short"):
        pictures(tmp_path / "both.tar")


def test_a_source_that_is_neither_file_nor_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="pipe is neither a file nor a folder; give a"):
        pictures(tmp_path / "pipe")


def test_members_that_cannot_be(tmp_path: Path) -> None:
    for name, kind, message in (
        ("a/1.png/2.png", tarfile.REGTYPE, "lies below 1.png, which is no folder"),
        ("a", tarfile.REGTYPE, "is a folder, and a file too"),
        ("a/../../2.png", tarfile.REGTYPE, "leaves its folder"),
        ("b/" * 2100 + "2.png", tarfile.REGTYPE, "a path of 4205 characters"),
        ("a/2.png", b"M", "several volumes"),
    ):
        with tarfile.open(tmp_path / "t.tar", "w") as tar:
            member(tar, "a/1.png", png(1))
            member(tar, name, png(2), kind)
        with pytest.raises(FormatError, match=message):
            pictures(tmp_path / "t.tar")


def test_files_of_other_types_are_files(tmp_path: Path) -> None:
    """Contiguous files, and what nobody knows (POSIX); a name that ends in a slash is a folder."""
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        member(tar, "/a/7.png", png(7), b"7")
        member(tar, "./a//8.png", png(8), b"Q")
        member(tar, "a/9.png/", kind=tarfile.AREGTYPE)
        member(tar, "a/9.png/10.png", png(10))
    assert pictures(tmp_path / "t.tar") == {"7.png": pixels(7), "8.png": pixels(8), "9.png/10.png": pixels(10)}


def zipped(path: Path, *entries: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return path


class RawInfo(zipfile.ZipInfo):
    """A name of any bytes."""

    raw: bytes

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802
        return self.raw, self.flag_bits


def raw_info(raw: bytes, extra: bytes = b"") -> RawInfo:
    info = RawInfo(raw.hex())
    info.raw, info.extra = raw, extra
    return info


def test_names_of_zips(tmp_path: Path) -> None:
    ours = "Äpfel/3.png"
    field = b"\1" + zlib.crc32(b"?pfel/3.png").to_bytes(4, "little") + ours.encode()
    extra = (0x7075).to_bytes(2, "little") + len(field).to_bytes(2, "little") + field
    path = zipped(
        tmp_path / "z.zip",
        (zipfile.ZipInfo("Äpfel/1.png"), png(1)),
        (UnflaggedInfo("Äpfel/2.png"), png(2)),
        (raw_info(b"?pfel/3.png", extra), png(3)),
        (raw_info("Äpfel/4.png".encode("cp437")), png(4)),
        (raw_info(b"Other/5.png", extra), png(5)),  # the field is of another name: renamed since
    )
    assert open_source("folder", path).classes == ("Other", "Äpfel")
    assert pictures(path)["Äpfel/4.png"] == pixels(4)
    assert others(path) == "names not in UTF-8 and read in code page 437: 1, e.g. Äpfel/4.png"


@pytest.mark.parametrize("field", [b"\1\0", b"\1" + zlib.crc32(b"1.png").to_bytes(4, "little") + b"\xff"])
@pytest.mark.parametrize("flags", [0, 0x800])
def test_a_name_in_utf_8_that_is_none_is_refused_by_every_python(tmp_path: Path, field: bytes, flags: int) -> None:
    """As zipfile does since Python 3.12."""
    info = raw_info(b"1.png", (0x7075).to_bytes(2, "little") + len(field).to_bytes(2, "little") + field)
    info.flag_bits = flags
    with pytest.raises(
        FormatError, match=r"z\.zip (is a zip archive that is cut short or damaged|has a name that is marked)"
    ):
        pictures(zipped(tmp_path / "z.zip", (info, png(1))))


def test_names_that_are_only_marked_as_utf_8(tmp_path: Path) -> None:
    path = zipped(tmp_path / "z.zip", (zipfile.ZipInfo("Äpfel/1.png"), png(1)))
    path.write_bytes(path.read_bytes().replace("Ä".encode(), "É".encode("latin-1") * 2))
    with pytest.raises(FormatError, match="a name that is marked as UTF-8 and is none; give the folder that it unp"):
        pictures(path)


@pytest.mark.parametrize("parting", ["/", "\\"])
def test_a_class_in_another_encoding_is_one(tmp_path: Path, parting: str) -> None:
    """In GBK the bytes of 猫 are UTF-8 by chance, those of 狗 are not."""
    names = [f"{folder}{parting}{name}.png".encode("gbk") for folder in "猫狗" for name in "猫狗"]
    source = open_source("folder", zipped(tmp_path / "z.zip", *((raw_info(name), png(1)) for name in names)))
    assert sorted(source.classes) == sorted(["猫".encode("gbk").decode(), "狗".encode("gbk").decode("cp437")])
    assert sorted(record.label for record in source.records()) == [0, 0, 1, 1]
    assert others(tmp_path / "z.zip").startswith("names not in UTF-8 and read in code page 437: 3, e.g. ")


def test_a_backslash_may_be_half_a_letter(tmp_path: Path) -> None:
    r"""In Shift JIS ソ ends with the byte of \. Two classes that begin with it stay two."""
    names = [f"ソ{kind}/1.png".encode("cp932") for kind in ("犬", "猫")]
    path = zipped(tmp_path / "z.zip", *((raw_info(name), png(1)) for name in names))
    assert [name.encode("cp437") for name in open_source("folder", path).classes] == [name[:-6] for name in names]
    flat = zipped(tmp_path / "f.zip", *((raw_info(f"{kind}1.png".encode("cp932")), png(1)) for kind in "ソ表犬"))
    with pytest.raises(FormatError, match=r"f\.zip holds .*, not in UTF-8, where . may part two folders or be half"):
        pictures(flat)
    french = zipped(
        tmp_path / "é.zip", *((raw_info(f"{kind}\\1.png".encode("cp437")), png(1)) for kind in ("blé", "maïs"))
    )
    assert open_source("folder", french).classes == ("blé", "maïs")


def test_backslashes_of_zips(tmp_path: Path) -> None:
    """Windows writes them between folders. In a file packed on Unix they may be letters: neither is guessed."""
    path = zipped(tmp_path / "w.zip", *((zipfile.ZipInfo(rf"pets\{name}\1.png"), png(1)) for name in ("cat", "dog")))
    assert open_source("folder", path).classes == ("cat", "dog")
    unix = zipfile.ZipInfo("cat/a\\b.png")
    unix.external_attr = 0o100644 << 16
    with pytest.raises(FormatError, match=r"cat/a\\b\.png, packed on Unix"):
        pictures(zipped(tmp_path / "u.zip", (unix, png(1))))


def test_zips_behind_a_program_and_behind_each_other(tmp_path: Path) -> None:
    one = zipped(tmp_path / "1.zip", (zipfile.ZipInfo("a/1.png"), png(1)))
    two = zipped(tmp_path / "2.zip", (zipfile.ZipInfo("a/2.png"), png(2)))
    (tmp_path / "unpacks_itself").write_bytes(b"#!/bin/sh\n" * 100 + one.read_bytes())
    assert pictures(tmp_path / "unpacks_itself") == {"1.png": pixels(1)}
    (tmp_path / "both.zip").write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(FormatError, match=r"begins with \d+ bytes of another zip"):
        pictures(tmp_path / "both.zip")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        member(tar, "a/3.png", png(3))
        member(tar, "more.zip", one.read_bytes())
    assert pictures(tmp_path / "t.tar") == {"3.png": pixels(3)}


def test_encrypted_files_are_bad_images(tmp_path: Path) -> None:
    path = zipped(tmp_path / "z.zip", (zipfile.ZipInfo("a/1.png"), png(1)), (zipfile.ZipInfo("a/2.png"), png(2)))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    path.write_bytes(data)
    why = "encrypted; unpack the archive with its password and give the folder"
    assert pictures(path) == {"1.png": why, "2.png": pixels(2)}


def test_a_checksum_behind_the_content_is_checked(tmp_path: Path) -> None:
    """As a zip is written to a pipe."""
    buffer = io.BytesIO()
    stream = io.BufferedWriter(Unseekable(buffer))
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/1.bmp", encoded(picture(1, 2, 3), "bmp"))
    stream.flush()
    (tmp_path / "z.zip").write_bytes(buffer.getvalue())
    assert pictures(tmp_path / "z.zip") == {"1.bmp": pixels(1)}
    data = bytearray(buffer.getvalue())
    data[data.index(b"BM") + 60] ^= 1  # a pixel
    (tmp_path / "z.zip").write_bytes(data)
    assert pictures(tmp_path / "z.zip") == {"1.bmp": "damaged: its checksum differs"}


class Unseekable(io.RawIOBase):
    def __init__(self, into: io.BytesIO):
        self.into = into

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[override]
        return self.into.write(data)


def test_names_that_are_not_utf8_are_refused_in_folder_and_tar(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["a/1.png"])
    os.rename(os.fsencode(folder / "a"), os.fsencode(folder) + b"/\xe4")
    path = make_tar(folder, tmp_path / "t.tar", tarfile.GNU_FORMAT, np.random.default_rng(0))
    for source in (folder, path):
        with pytest.raises(FormatError, match=r"not UTF-8, '\\udce4/1\.png'"):
            pictures(source)


def test_too_many_open_files_is_no_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "f", ["a/1.png"])
    tar = make_tar(folder, tmp_path / "t.tar", tarfile.GNU_FORMAT, np.random.default_rng(0))
    zip_ = make_zip(folder, tmp_path / "z.zip", np.random.default_rng(0), True)
    opened = [(open_source("folder", path), path) for path in (folder, tar, zip_)]
    records = [source.records()[0] for source, _ in opened]

    def fails(*args: object, **options: object) -> None:
        raise OSError(24, "Too many open files")

    for module in (io, builtins):
        monkeypatch.setattr(module, "open", fails)
    for (source, _), record in zip(opened, records, strict=True):
        with pytest.raises(OSError, match="Too many open files"):
            source.read(record)


def test_links_in_an_archive_of_cifar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        member(tar, "cifar-100-python/train", kind=SYMBOLIC, target="../elsewhere")
    with pytest.raises(FormatError, match="train is a link, not a file; pack it again"):
        read_cifar100(tmp_path / "c.tar")


def test_what_has_no_image_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/1.tif").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"no \.jpg, .*: 1 that is no image \(1 \.tif\)"):
        open_source("folder", tmp_path / "f").records()


def test_links_that_multiply_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two links to the next folder in each of 24: sixteen million paths to one picture."""
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for depth in range(24):
            for side in "ab":
                member(tar, f"{depth}/{side}", kind=SYMBOLIC, target=f"../{depth + 1}")
        member(tar, "24/1.png", png(1))
    monkeypatch.setattr("pipelines.archives.tree.MOST_ENTRIES", 5000)
    with pytest.raises(FormatError, match="more than 5000 files and folders"):
        pictures(tmp_path / "t.tar")
