"""The .npy headers that the format allows: version 1.0, C order, and byte for byte as numpy writes them."""

from __future__ import annotations

import functools
import io
import re

import numpy as np

_SHAPE = re.compile(rb"'shape': \((\d{1,5}), (\d{1,5})\)")


def npy_bytes(array: np.ndarray) -> bytes:
    """`array` as the content of an .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


@functools.lru_cache(maxsize=4096)
def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """What precedes the values of an array, e.g. ((96, 96), "<f2"). Little-endian on every machine."""
    buffer = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def npy_shape(data: bytes, dtype: str, max_side: int) -> tuple[int, int] | None:
    """[rows, columns] of a whole .npy of `dtype`, from its header and length alone; None: it is anything else.

    Nothing is evaluated or allocated: the header has to be the very one that numpy writes for that shape.
    """
    found = _SHAPE.search(data[:128])
    if not found:
        return None
    rows, columns = int(found[1]), int(found[2])
    if not (1 <= rows <= max_side and 1 <= columns <= max_side):
        return None
    header = npy_header((rows, columns), dtype)
    whole = len(header) + rows * columns * np.dtype(dtype).itemsize
    return (rows, columns) if len(data) == whole and data.startswith(header) else None
