"""Files in a zip archive: listed once, then any one read by its place, without the archive's directory.

Programs spell the names of entries in three ways: in UTF-8, in code page 437, and with backslashes between folders.
"""

from __future__ import annotations

import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipelines.archives import FILE, FOLDER, LINK, LONGEST_PATH, ArchiveMember, printable, readable
from pipelines.archives.tar_headers import BLOCK, checksum_holds
from shards.errors import FormatError, reason_of
from shards.machine.environment import pass_environment_on

HEADER = struct.Struct("<4s5H3L2H")  # a file's own header; its name and extra field follow, then its content
SIGNATURE, DESCRIPTOR = b"PK\x03\x04", b"PK\x07\x08"
ENCRYPTED, CHECKSUM_FOLLOWS = 1, 8
STORED, DEFLATED = 0, 8
UNIX = (3, 19)  # systems that "made" an entry and store the mode of its file
DOS_FOLDER = 0x10
UNKNOWN_DISK = 0xFFFF  # as zip64 writes it
KINDS = {
    stat.S_IFDIR: FOLDER,
    stat.S_IFLNK: LINK,
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def is_zip(path: Path) -> bool:
    """Also one behind a program that unpacks it. A tar whose last file is a zip is none."""
    with path.open("rb") as file:
        start = file.read(BLOCK)
    if start[:2] == b"PK":
        return True
    try:
        is_tar = len(start) == BLOCK and any(start) and checksum_holds(start, path)
    except FormatError:
        is_tar = False
    return not is_tar and start[:2] != b"\x1f\x8b" and zipfile.is_zipfile(path)


def walk_zip(path: Path, guessed: list[str]) -> Iterator[ArchiveMember]:
    """`offset`: byte at which the entry's header begins; `length`: bytes of its packed content.

    `guessed` gets the names whose encoding nothing tells.
    Raises FormatError for an archive that is cut, damaged, one part of several, or two of them in one file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of entries that occur twice, of extra fields
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        names = list(map(entry_name, entries))
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path} has a name that is marked as UTF-8 and is none; give the folder that it unpacks to"
        ) from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        pass_environment_on(error)
        raise FormatError(
            f"{path} is a zip archive that is cut short or damaged ({reason_of(error)}); fetch it again"
        ) from error
    _check_whole(path, entries)
    for entry, (name, is_guess) in zip(entries, names, strict=True):
        guessed += [name] if is_guess else []
        yield _member(path, entry, name, is_guess)


def _check_whole(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    with path.open("rb") as file:
        begins_with_a_file = file.read(len(SIGNATURE)) == SIGNATURE
    if any(entry.volume not in (0, UNKNOWN_DISK) for entry in entries):
        raise FormatError(f"{path} is a part of a zip archive in several files; join them (zip -s 0 … --out …)")
    if any(entry.header_offset < 0 for entry in entries):
        raise FormatError(f"{path} is a zip archive that is cut short: its beginning is missing; fetch it again")
    first = min((entry.header_offset for entry in entries), default=0)
    if begins_with_a_file and first > 0:
        raise FormatError(
            f"{path} begins with {first} bytes of another zip archive, which its directory does not list; give the two "
            "archives apart, or pack the folder again"
        )


def _member(path: Path, entry: zipfile.ZipInfo, name: str, is_guess: bool) -> ArchiveMember:
    mode = entry.external_attr >> 16 if entry.create_system in UNIX else 0
    if not (is_guess and "/" in name):  # there "\\" is the second byte of a letter, of ソ in Shift JIS
        _refuse_half_letters(path, name, entry.orig_filename.encode("cp437") if is_guess else b"")
        name = split_at_backslashes(path, name, bool(stat.S_IFMT(mode)))
    kind = KINDS.get(stat.S_IFMT(mode), FILE)
    if name.endswith("/") or (not mode and entry.external_attr & DOS_FOLDER and not entry.file_size):
        return ArchiveMember(name, FOLDER)
    if kind != LINK:
        return ArchiveMember(name, kind, entry.file_size, entry.header_offset, entry.compress_size)
    try:
        target = unpack(path, entry.header_offset, entry.compress_size, LONGEST_PATH)
    except ValueError as error:
        raise FormatError(f"{path}: the link {printable(name)}: {error}") from error
    return ArchiveMember(name, LINK, target=target.decode("utf-8", "surrogateescape"))


def unpack(path: Path, offset: int, packed: int, largest: int) -> bytes:
    """Content of the file whose header begins at `offset`. ValueError: damaged, encrypted, too large."""
    with readable(), path.open("rb", buffering=0) as file:
        file.seek(offset)
        head = file.read(HEADER.size)
        if len(head) < HEADER.size or head[:4] != SIGNATURE:
            raise ValueError("cut short or damaged: the archive has no file at its place")
        _, _, flags, method, _, _, checksum, _, _, name_length, extra_length = HEADER.unpack(head)
        file.seek(name_length + extra_length, 1)
        data, after = file.read(packed), file.read(8)
    if flags & ENCRYPTED:
        raise ValueError("encrypted; unpack the archive with its password and give the folder")
    if method not in (STORED, DEFLATED):
        raise ValueError(f"packed in a way that is not read (method {method}); zip it again plainly")
    if len(data) != packed:
        raise ValueError("cut short: the archive ends inside it")
    data = _inflated(data, largest) if method == DEFLATED else data
    wanted = [checksum]
    if flags & CHECKSUM_FOLLOWS:  # it may have a signature before it, which a checksum may look like
        places = (0, 4) if after[:4] == DESCRIPTOR else (0,)
        wanted += [int.from_bytes(after[at : at + 4], "little") for at in places]
    if zlib.crc32(data) not in wanted:
        raise ValueError("damaged: its checksum differs")
    return data


def _inflated(data: bytes, largest: int) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = stream.decompress(data, largest + 1)
    except zlib.error as error:
        raise ValueError(f"damaged ({reason_of(error)})") from error
    if len(unpacked) > largest:
        raise ValueError(f"more than {largest} bytes")
    if not stream.eof:
        raise ValueError("cut short or damaged: its packed content does not end")
    return unpacked


IS_UTF8 = 0x800
UNICODE_PATH = 0x7075  # Info-ZIP's extra field: version, CRC of the name as stored, the name in UTF-8


def entry_name(entry: zipfile.ZipInfo) -> tuple[str, bool]:
    """UTF-8 if the entry says so, has an extra field that does, or if its bytes are; else code page 437, as ever.

    And whether that was a guess: what Windows wrote in another language is spelled wrongly then. Each folder is spelled
    by itself: some bytes of other encodings are UTF-8 by chance (猫 in GBK), and files in it must not part it in two.
    ValueError: an extra field that Python 3.12 refuses too.
    """
    is_utf8 = bool(entry.flag_bits & IS_UTF8)
    stored = entry.orig_filename.encode("utf-8" if is_utf8 else "cp437")
    told, stored = _unicode_path(entry.extra, stored), stored.partition(b"\0")[0]
    if is_utf8 or told:
        return (stored.decode() if is_utf8 else told), False
    parting = b"/" if b"/" in stored else b"\\"
    parts = [_spelled(part) for part in stored.split(parting)]
    return parting.decode().join(part for part, _ in parts), any(is_guess for _, is_guess in parts)


def _spelled(stored: bytes) -> tuple[str, bool]:
    try:
        return stored.decode(), False
    except UnicodeDecodeError:
        return stored.decode("cp437"), True


def _unicode_path(extra: bytes, stored: bytes) -> str:
    """ "" where there is none, or that of another name."""
    while len(extra) >= 4:
        tag, size = (int.from_bytes(extra[at : at + 2], "little") for at in (0, 2))
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if tag != UNICODE_PATH:
            continue
        if len(field) < 5:
            raise ValueError("a corrupt unicode path field")
        if field[:1] == b"\1" and int.from_bytes(field[1:5], "little") == zlib.crc32(stored):
            return field[5:].decode()
    return ""


def _refuse_half_letters(path: Path, name: str, stored: bytes) -> None:
    r"""FormatError where "\" may part folders or be half a letter of Shift JIS: ソ1.png would be a class of its own."""
    if stored.decode("cp932", "replace").count("\\") < stored.count(b"\\"):
        raise FormatError(
            f"{path} holds {printable(name)}, not in UTF-8, where \\ may part two folders or be half a letter of Shift "
            "JIS; give the folder that it unpacks to (unzip -O cp932)"
        )


def split_at_backslashes(path: Path, name: str, from_unix_file: bool) -> str:
    r"""Windows programs write "cat\1.png"; but where a file lay on Unix, "\" may be a letter of its name.

    Raises FormatError where it cannot be told which it is.
    """
    if "\\" not in name:
        return name
    if from_unix_file:
        raise FormatError(
            f"{path} holds {printable(name)}, packed on Unix, where \\ may be a letter of the name or part two "
            "folders; rename it, or give the folder"
        )
    return name.replace("\\", "/")
