"""One member of an archive, as its tar or zip describes it."""

from __future__ import annotations

from typing import NamedTuple

FILE, FOLDER, LINK, HARD_LINK = "file", "folder", "link", "hard link"
LONGEST_PATH = 4096  # bytes; no system can unpack a longer one


class Member(NamedTuple):
    """`kind` is one of the four above, or names what else it is ("fifo").

    name      path with "/", as stored; bytes that are no UTF-8 as surrogates
    size      bytes of its content, expanded
    offset    where a FileReader finds it, and
    length    how many bytes it takes there (images/file_list.py says what both mean)
    target    what a link leads to
    """

    name: str
    kind: str
    size: int = 0
    offset: int = 0
    length: int = 0
    target: str = ""
