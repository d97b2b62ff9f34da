"""Standard streams that never raise: closed ones, ones that hold fewer characters than Unicode has, full ones."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TextIO

PLAIN = str.maketrans("–—−─·×✕²³¹⁴⁵⁶⁹’“”₀₁₂↓►│├└█┃━△µ≈", '----.xx2314569\'""012v>||`#|-^u~') | str.maketrans(
    {
        **{"→": "->", "←": "<-", "…": "...", "≥": ">=", "≤": "<=", "±": "+/-"},
        **{"½": "1/2", "°": " deg", "§": "section "},
        **{"√": "sqrt ", "✓": "ok", "Σ": "sum", "σ": "sigma", "τ": "tau", "Δ": "delta", "π": "pi", "θ": "theta"},
        **{"φ": "phi", "ε": "eps", "α": "alpha", "β": "beta", "γ": "gamma", "λ": "lambda", "μ": "mu"},
    }
)
"""What our own texts use beyond ASCII, in ASCII. Other people's names are shown with "?" instead."""
HANDLER, ASCII = "seqjepa-plain", "seqjepa-ascii"


def plain(text: str) -> str:
    """`text` in ASCII. A byte of a file name that is not UTF-8 is shown as \\xff."""
    return "".join(
        character if character.isascii() else f"\\x{ord(character) - 0xDC00:02x}" if _is_byte(character) else "?"
        for character in text.translate(PLAIN)
    )


def _is_byte(character: str) -> bool:
    return 0xDC80 <= ord(character) <= 0xDCFF


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


def _find(name: str) -> codecs.CodecInfo | None:
    """ASCII under a name of its own: typer takes a stream for misconfigured that is called ASCII, and writes UTF-8."""
    if name.replace("_", "-") != ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode, known.decode, known.streamreader, known.streamwriter, known.incrementalencoder,
        known.incrementaldecoder, name=ASCII,
    )  # fmt: skip


codecs.register_error(HANDLER, _replace)
codecs.register(_find)


def prepare_streams() -> None:
    """Whatever is written to standard output and error from now on is shown as well as it can be."""
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=ASCII if ascii_only else None, errors=HANDLER)


def _open_what_is_closed() -> None:
    """Or the next file that is opened would be standard output, and its content mixed with what is printed."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which this one is
        setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for good


def warn(line: str) -> None:
    """To standard error, or to nobody where that cannot be written."""
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        silence(sys.stderr)


def finish(stream: TextIO | None) -> OSError | None:
    """Write what is held back. Returns what went wrong, if anything; the stream is silent from then on."""
    try:
        if stream is not None and not stream.closed:
            stream.flush()
    except OSError as error:
        silence(stream)
        return error
    return None


def silence(stream: TextIO | None) -> None:
    """Drop whatever is written to it, now and later."""
    try:
        assert stream is not None
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
        stream.flush()
    except (OSError, ValueError, AssertionError, io.UnsupportedOperation):
        return


def is_broken_pipe(error: OSError) -> bool:
    return error.errno == errno.EPIPE
