"""What can go wrong, as one small tree. The command line prints the text of a SeqJepaError as one line.

SeqJepaError
├── UsageError          FormatError, ConfigError        exit code 2
└── FailureError        DamageError, DiskFullError      exit code 1
"""

from __future__ import annotations

from collections.abc import Sequence


class SeqJepaError(Exception):
    """Base class. `exit_code` is what the command line exits with."""

    exit_code = 1


class UsageError(SeqJepaError):
    """Input that cannot be used: an option, an argument, a file. Exit code 2."""

    exit_code = 2


class FormatError(UsageError):
    """A folder, file or set is not what it should be: another layout, a newer version. Exit code 2."""


class ConfigError(UsageError):
    """An unknown setting, a value out of range, or a run and shards that do not fit each other. Exit code 2."""


class FailureError(SeqJepaError):
    """The input was fine, but the work could not be finished. Exit code 1."""

    exit_code = 1


class DamageError(FailureError):
    """Stored bytes are not those that an index or a checksum names. Exit code 1."""


class DiskFullError(FailureError):
    """No space left; what is finished stays, and the same command goes on. Exit code 1."""


_UNSAFE = ("weights_only", "Weights only", "allow_pickle", "pickle.load")


def reason_of(error: BaseException) -> str:
    """What a library said went wrong, in a line: never empty, and never its advice to unpickle what strangers wrote."""
    said = " ".join(str(error).split())
    if any(word in said for word in _UNSAFE):
        return "it holds other things than plain numbers, or is cut short"
    return said or type(error).__name__


def few(names: Sequence[str], most: int = 3, parted: str = ", ") -> str:
    """ "a, b, c and 4 more": what a line names of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return parted.join(names[:most]) + more


def counted(number: int, of: str) -> str:
    """ "1 shard", "2 shards"."""
    return f"{number} {of}" + "s" * (number != 1)
