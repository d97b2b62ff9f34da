"""Pickles of plain containers and byte arrays, read without running anything that they name.

A pickle is a program: it may name any function and have it called. CIFAR's files need three names, by which NumPy and
Python 2 spell arrays and bytes. Each stands for a harmless object of ours here, never for the real one, and any other
name ends the reading. What is called cannot be changed either: these objects have no attributes to set.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

from shards.errors import FormatError

LARGEST_PICKLE = 256 << 20  # bytes; CIFAR-100's largest has 155 million
SHOWN = 80  # characters of a refused name
MEMO_WRITES = ("PUT", "BINPUT", "LONG_BINPUT")


class StoredBytes:
    """An array of a pickle: `value` is uint8, read-only; None until the pickle has said what is in it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Uint8) or not isinstance(data, bytes) or fortran or version != 1:
            raise FormatError("an array that is not plain uint8 in rows")
        if not all(isinstance(side, int) and side >= 0 for side in shape) or math.prod(shape) != len(data):
            raise FormatError(f"an array of shape {shape} with {len(data)} bytes")
        self.value = np.frombuffer(data, np.uint8).reshape(shape)


class _Uint8:
    """Stands for numpy.dtype("u1"); its state (byte order and the like) has nothing to say for bytes."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _DtypeName:
    """Stands for numpy.dtype."""

    __slots__ = ()

    def __call__(self, code: Any, *flags: Any) -> _Uint8:
        if code not in ("u1", b"u1"):
            raise FormatError(f"an array of type {str(code)[:SHOWN]!a}, where uint8 (u1) is expected")
        return _Uint8()


class _NdarrayName:
    """Stands for numpy.ndarray, which is only handed to the next one."""

    __slots__ = ()


class _Reconstruct:
    """Stands for NumPy's function that makes an empty array, to be filled by its state."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, code: Any) -> StoredBytes:
        if not isinstance(kind, _NdarrayName):
            raise FormatError("an array of a kind of its own")
        return StoredBytes()


class _Encode:
    """Stands for _codecs.encode: how Python 3 spells bytes in a pickle that Python 2 can read."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise FormatError("bytes that are not spelled in latin1")
        return text.encode("latin1")


ALLOWED = {
    ("numpy", "dtype"): _DtypeName,
    ("numpy", "ndarray"): _NdarrayName,
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct,  # NumPy 2
    ("_codecs", "encode"): _Encode,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise FormatError(
                f"it names {f'{module}.{name}'[:SHOWN]!a}, where only lists, dicts, text, numbers and byte arrays are "
                "allowed; nothing was run"
            )
        return ALLOWED[module, name]()


def load_plain(data: bytes, where: str) -> Any:
    """What a pickle holds: dicts, lists, tuples, numbers, str, bytes (also for Python 2's str), and `StoredBytes`.

    Raises FormatError, beginning with `where`: a pickle that names anything else, is cut short or damaged.
    """
    try:
        # Python makes room for the largest number of a noted object at once: gigabytes, in a pickle of ten bytes.
        for opcode, number, _ in pickletools.genops(data):
            if opcode.name in MEMO_WRITES and int(number or 0) > len(data):
                raise FormatError("a noted object has a number beyond the file's size")
        return _Restricted(io.BytesIO(data), fix_imports=False, encoding="bytes").load()
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
    except Exception as error:  # a damaged pickle may raise nearly anything
        reason = f"{type(error).__name__}: {str(error)[:SHOWN]}"
        raise FormatError(f"{where} is no pickle, cut short or damaged ({reason}); fetch it again") from error
