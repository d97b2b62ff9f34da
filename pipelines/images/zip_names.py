"""Names of a zip archive's entries, which programs spell in three ways."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from pipelines.left_out import shown
from shards.errors import FormatError

IS_UTF8 = 0x800
UNICODE_PATH = 0x7075  # Info-ZIP's extra field: version, CRC of the name as stored, the name in UTF-8


def name_of(entry: zipfile.ZipInfo) -> tuple[str, bool]:
    """UTF-8 if the entry says so, has an extra field that does, or if its bytes are; else code page 437, as ever.

    And whether that was a guess: what Windows wrote in another language is spelled wrongly then.
    """
    if entry.flag_bits & IS_UTF8:
        return entry.orig_filename.partition("\0")[0], False
    stored = entry.orig_filename.encode("cp437").partition(b"\0")[0]
    try:
        return _unicode_path(entry.extra, stored) or stored.decode(), False
    except UnicodeDecodeError:
        return stored.decode("cp437"), True


def _unicode_path(extra: bytes, stored: bytes) -> str | None:
    while len(extra) >= 4:
        tag, size = (int.from_bytes(extra[at : at + 2], "little") for at in (0, 2))
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if tag == UNICODE_PATH and field[:1] == b"\1" and int.from_bytes(field[1:5], "little") == zlib.crc32(stored):
            return field[5:].decode()
    return None


def split_at_backslashes(path: Path, name: str, from_unix_file: bool) -> str:
    r"""Windows programs write "cat\1.png"; but where a file lay on Unix, "\" may be a letter of its name.

    Raises FormatError where it cannot be told which it is.
    """
    if "\\" not in name:
        return name
    if from_unix_file:
        raise FormatError(
            f"{path} holds {shown(name)}, packed on Unix, where \\ may be a letter of the name or part two folders; "
            "rename it, or give the folder"
        )
    return name.replace("\\", "/")
