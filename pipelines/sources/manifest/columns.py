"""Columns of a table as numbers, texts or whole numbers, whatever type the file gave them. Letters: R rows, n numbers.

Numbers may be written with a point, with a decimal comma (as Excel does in half the world), as text or as true/false.
What could be meant in two ways ("1,234") is no number.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are made when it is imported, so that no type checker knows them

EMPTY = ("", "nan", "na", "n/a", "#n/a", "null", "none", "-")
WORDS = {"true": "1", "false": "0"}
JSON = {"nan": "NaN", "inf": "Infinity", "None": "null", "True": "true", "False": "false"}
POINT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
COMMA = r"^[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?$"
HAS_POINT = r"^[+-]?[0-9]*\.[0-9]*([eE][+-]?[0-9]+)?$"
GROUPED = r"^[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+$"
THOUSANDS = r"^[+-]?[0-9]{1,3}(,[0-9]{3})+$"
ALIKE = r"^[+-]?([0-9]{1,3}([.,' ][0-9]{3})+([.,][0-9]+)?|[0-9]*[.,][0-9]+)$"  # what may be meant as a number
INFINITE = r"^[+-]?inf(inity)?$"
WHOLE = r"^[+-]?[0-8]?[0-9]{1,18}(\.0*)?$"  # below 9e18, as int64 holds
EXACT = 2.0**53  # up to which a float64 holds every whole number
MOST_NUMBERS = 4096  # in one cell
NUMBERS = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)


@dataclass(frozen=True)
class Numbers:
    """values   float64 [R, n]; NaN where a cell is empty or no number
    empty    bool [R]: a cell without a number, or with an empty one
    wrong    bool [R]: a cell that is something else, such as text
    shape    of a cell: () for a number, (n,) for a list, (4, 4) for a matrix
    alike    how many of the wrong cells look like numbers, such as 1,234
    comma    whether decimal commas were read
    grouped  whether all points may part thousands, as in 1.234
    whole    whether all are whole numbers, which a float32 may not hold
    """

    values: np.ndarray
    empty: np.ndarray
    wrong: np.ndarray
    shape: tuple[int, ...] = ()
    alike: int = 0
    comma: bool = False
    grouped: bool = False
    whole: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is no column of numbers: less than half of what is written are numbers."""
        written = int((~self.empty).sum())
        return 2 * (int(self.wrong.sum()) - self.alike) > written or not written


def as_numbers(column: pa.ChunkedArray, separator: str) -> Numbers | None:
    """None: a type that holds no numbers (times, bytes). `separator`: what parts the columns of a CSV."""
    kind = column.type
    if pa.types.is_null(kind):
        rows = len(column)
        return Numbers(np.full((rows, 1), np.nan), np.ones(rows, bool), np.zeros(rows, bool))
    if is_text(kind):
        lists = _lists_of_text(column)
        return _of_text(column.cast(pa.string()), separator) if lists is None else _of_lists(lists)
    if any(test(kind) for test in NUMBERS):
        values = _float64(column)
        return Numbers(values[:, None], np.isnan(values), np.zeros(len(values), bool), whole=pa.types.is_integer(kind))
    return _of_lists(column) if _is_list(kind) else None


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _lists_of_text(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Lists as a CSV has them, which is how pandas writes them (_list); None: not all of the cells are such."""
    bare = (str(text).strip() for text in column if text.is_valid)
    if not next((text for text in bare if text.lower() not in EMPTY), "").startswith(("[", "(")):
        return None
    empty = {None, *EMPTY}
    try:
        cells = [_list(text) if (text and text.strip().lower()) not in empty else None for text in column.to_pylist()]
        lists = pa.chunked_array([pa.array(cells)])
    except (pa.ArrowException, OverflowError, TypeError, ValueError, RecursionError):
        return None
    return lists if _is_list(lists.type) else None


def _list(text: str) -> Any:
    """Of "[0.5, 1]", Python's "(0.5, None)" and "[np.float64(0.5)]", NumPy's "[0.5 1.]". ValueError: anything else, and
    "(1,234)", as accountants write a negative number."""
    try:
        return json.loads(text)
    except ValueError:
        text = re.sub(r"np\.\w+\(([^()]*)\)", r"\1", text)
        text = text.translate({ord("("): "[", ord(")"): "]"}) if ", " in text else text
        text = re.sub(r"(?<=[\w.\]])\s+(?=[\w.+\[-])", ", ", text)
        text = re.sub(r"[A-Za-z]{3,}", lambda word: JSON.get(word[0], word[0]), text)
        return json.loads(re.sub(r"(\d\.)(?!\d)", r"\g<1>0", text))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _float64(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def _of_text(text: pa.ChunkedArray, separator: str) -> Numbers:
    text = pc.utf8_trim_whitespace(text)
    small = pc.utf8_lower(text)
    empty = pc.or_(pc.is_null(text), pc.fill_null(pc.is_in(small, pa.array(EMPTY)), True))
    for word, number in WORDS.items():
        text = pc.if_else(pc.equal(small, word), number, text)
    with_comma, with_point = _matches(text, COMMA), _matches(text, HAS_POINT)
    has_point = pc.any(with_point).as_py()
    comma = bool(pc.any(with_comma).as_py()) and not has_point
    grouped = bool(has_point) and pc.all(pc.or_(pc.invert(with_point), _matches(text, GROUPED))).as_py()
    if comma and separator == ",":  # a quoted value: 1,234 may be 1234
        comma = not pc.all(pc.or_(pc.invert(with_comma), _matches(text, THOUSANDS))).as_py()
    if comma:
        text = pc.if_else(with_comma, pc.replace_substring(text, ",", "."), text)
    infinite = _matches(small, INFINITE)
    good = pc.or_(_matches(text, POINT), infinite)
    values = pc.if_else(good, text, None).cast(pa.float64()).to_numpy()
    is_empty = np.asarray(empty.to_numpy(), bool)
    wrong = ~np.asarray(good.to_numpy(), bool) & ~is_empty
    whole = bool(pc.all(pc.or_(_matches(text, WHOLE), empty)).as_py())
    alike = int((wrong & np.asarray(_matches(text, ALIKE).to_numpy(), bool)).sum())
    return Numbers(np.array(values, np.float64)[:, None], is_empty, wrong, (), alike, comma, grouped, whole)


def _matches(text: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    return pc.fill_null(pc.match_substring_regex(text, pattern), False)


def _of_lists(column: pa.ChunkedArray) -> Numbers | None:
    """Lists, and lists of lists, of as many numbers in each row as most rows have; row by row."""
    rows = len(column)
    empty = np.asarray(pc.is_null(column).to_numpy(), bool)
    wrong = np.zeros(rows, bool)
    flat, shape, of = column.filter(pa.array(~empty)), (), np.flatnonzero(~empty)
    while _is_list(flat.type):
        lengths = np.asarray(pc.fill_null(pc.list_value_length(flat), 0).to_numpy(), np.int64)
        found, counts = np.unique(lengths, return_counts=True)
        size = int(found[counts.argmax()]) if len(found) else 0
        if not 1 <= size <= MOST_NUMBERS:
            return None
        fits = np.ones(rows, bool)
        fits[of[lengths != size]] = False
        wrong |= ~fits & ~empty
        flat, of = flat.filter(pa.array(fits[of])), of[fits[of]]
        flat, of, shape = pc.list_flatten(flat), np.repeat(of, size), (*shape, size)
    inner = as_numbers(flat, ".")
    if inner is None:
        return None
    count = int(np.prod(shape, dtype=np.int64))
    values = np.full((rows, count), np.nan)
    kept = np.unique(of)
    values[kept] = inner.values.reshape(len(kept), count)
    wrong[of[inner.wrong]] = True
    empty[of[inner.empty]] = True
    return Numbers(values, empty, wrong, shape, inner.alike, inner.comma, inner.grouped, inner.whole)


def as_integers(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int64 [R], and bool [R] twice: cells that are empty, and that are no whole number (3.0 is one)."""
    if is_text(column.type):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        empty = pc.or_(pc.is_null(text), pc.fill_null(pc.is_in(pc.utf8_lower(text), pa.array(EMPTY)), True))
        good = _matches(text, WHOLE)
        plain = pc.replace_substring_regex(text, r"^\+|\.0*$", "")
        numbers = pc.fill_null(pc.if_else(good, plain, "0").cast(pa.int64()), 0)
        is_empty = np.asarray(empty.to_numpy(), bool)
        return np.array(numbers.to_numpy(), np.int64), is_empty, ~np.asarray(good.to_numpy(), bool) & ~is_empty
    if pa.types.is_integer(column.type):
        empty = np.asarray(pc.is_null(column).to_numpy(), bool)
        values = np.array(pc.fill_null(column, 0).to_numpy())
        big = values > np.iinfo(np.int64).max if values.dtype == np.uint64 else np.zeros(len(values), bool)
        return np.where(big, 0, values).astype(np.int64), empty, big
    found = as_numbers(column, ".")
    if found is None or found.values.shape[1] != 1:
        return np.zeros(len(column), np.int64), np.zeros(len(column), bool), np.ones(len(column), bool)
    values = np.nan_to_num(found.values[:, 0], nan=0.0, posinf=0.5, neginf=0.5)
    odd = (values != np.floor(values)) | (np.abs(values) > EXACT)
    return np.where(odd, 0, values).astype(np.int64), found.empty, odd | found.wrong


def as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """large_string, trimmed; null where a cell is empty, or of a type that is no text. Whole numbers as such: "3", also
    of a column of floats."""
    if pa.types.is_floating(column.type):
        numbers, empty, odd = as_integers(column)
        if not odd.any():
            column = pa.chunked_array([pa.array(numbers, mask=empty)])
    try:  # texts of more than 2 GiB need offsets of 64 bits
        column = column.cast(pa.large_string())
    except pa.ArrowException:
        column = pa.chunked_array([pa.nulls(len(column), pa.large_string())])
    text = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(text, ""), None, text)


def holds_texts(column: pa.ChunkedArray) -> bool:
    """Whether as_texts can tell what its cells are: it cannot of lists, or of bytes that are no UTF-8."""
    try:
        column.cast(pa.large_string())
    except pa.ArrowException:
        return False
    return True


def distinct(texts: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """int64 [R], the rank of each row's text among the different ones, which ascend; −1 where there is none."""
    coded = texts.combine_chunks().dictionary_encode()
    names = coded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=lambda i: names[i])
    rank = np.empty(len(names) + 1, np.int64)
    rank[order] = np.arange(len(names))
    rank[-1] = -1
    codes = coded.indices.fill_null(-1).to_numpy()
    return rank[codes], [names[i] for i in order]
