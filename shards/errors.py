"""What can go wrong, as one small tree.

SeqJepaError            base of all; the command line prints its text as one line, without a traceback
├── UsageError          bad input: what was found, what is allowed, what to do          exit code 2
│   ├── FormatError     a folder, file or set is not what it should be (wrong layout, newer version)
│   └── ConfigError     an unknown key, a value out of range, a mismatch between run and shards
└── FailureError        the input was fine but the work could not be finished           exit code 1
    ├── DamageError     stored bytes differ from what the index or a checksum says
    └── DiskFullError   no space left; what is finished stays, the same command resumes
"""

from __future__ import annotations

from collections.abc import Sequence


class SeqJepaError(Exception):
    """Base class. `exit_code` is what the command line exits with."""

    exit_code = 1


class UsageError(SeqJepaError):
    exit_code = 2


class FormatError(UsageError):
    pass


class ConfigError(UsageError):
    pass


class FailureError(SeqJepaError):
    exit_code = 1


class DamageError(FailureError):
    pass


class DiskFullError(FailureError):
    pass


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
