"""Pickles that are read without running what they name."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.sources.restricted_pickle import StoredBytes, load_plain
from shards.errors import FormatError

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
U1 = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


class Calls:
    def __init__(self, function: Any, *args: Any):
        self.function, self.args = function, args

    def __reduce__(self) -> tuple:
        return self.function, self.args


def test_what_python_2_wrote() -> None:
    """Opcode by opcode, as NumPy under Python 2.7 does: text is byte strings, an array's bytes lie in one piece."""
    data = b"\x80\x02}q\x01(U\x04dataq\x02" + ARRAY + b"(K\x01K\x02K\x03\x86" + U1 + b"\x89U\x06abcdeftb"
    data += b"U\x05namesq\x03]q\x04(U\x01aU\x01\xffX\x02\x00\x00\x00\xc3\xbceu."
    found = load_plain(data, "it")
    assert found[b"names"] == [b"a", b"\xff", "ü"]
    assert isinstance(found[b"data"], StoredBytes)
    assert np.array_equal(found[b"data"].value, [[97, 98, 99], [100, 101, 102]])
    assert np.array_equal(found[b"data"].value, pickle.loads(data, encoding="bytes")[b"data"])


@pytest.mark.parametrize("protocol", range(5))
def test_plain_values_of_every_protocol(protocol: int) -> None:
    value = {"a": [1, -7, 2**40, 0.5, None, True], "b": ("x", {"y": []})}
    assert load_plain(pickle.dumps(value, protocol), "it") == value


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_that_python_3_wrote(protocol: int) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert np.array_equal(load_plain(pickle.dumps([array], protocol), "it")[0].value, array)


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_is_not_run(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    data = pickle.dumps({"data": Calls(os.system, f"touch {made}")}, protocol)
    with pytest.raises(FormatError, match=r"^train: it names '(posix|nt)\.system', where only lists"):
        load_plain(data, "train")
    assert not made.exists()
    pickle.loads(data)
    assert made.exists()  # the pickle is as bad as it should be


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Calls(eval, "1"), "eval"),
        (Calls(getattr, "x", "upper"), "getattr"),
        (Calls(np.load, "x"), "numpy.load"),
        (np.float64(1), "scalar"),
        (OrderedDict(a=1), "collections.OrderedDict"),
        (np.dtype, None),
        (Path("x"), "pathlib"),
        (print, "print"),
    ],
)
def test_any_other_name_is_refused(value: Any, name: str | None) -> None:
    data = pickle.dumps(value, 2)
    if name is None:
        assert not isinstance(load_plain(data, "it"), type)  # a harmless stand-in, not NumPy's own
        return
    with pytest.raises(FormatError, match=f"it names .*{name}"):
        load_plain(data, "it")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, object), "an array of type 'O8?'"),
        (np.zeros(3, np.float32), "an array of type 'f4'"),
        (np.zeros(3, np.int8), "an array of type 'i1'"),
        (np.zeros(3, [("a", "u1")]), "an array of type 'V1'"),
        (np.asfortranarray(np.zeros((3, 2), np.uint8)), "not plain uint8 in rows"),
        (np.ma.masked_array(np.zeros(3, np.uint8)), "it names 'numpy.ma"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        load_plain(pickle.dumps(array, 2), "it")


@pytest.mark.parametrize(
    "state",
    [
        b"(K\x01K\x02K\x04\x86" + U1 + b"\x89U\x06abcdeftb",  # more elements than bytes
        b"(K\x01J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86" + U1 + b"\x89U\x06abcdeftb",  # (−1) · (−6) elements
        b"(K\x01K\x06\x85" + U1 + b"\x89](K\x01K\x02etb",  # a list as bytes
        b"(K\x01K\x06\x85N\x89U\x06abcdeftb",  # no type
        b"(K\x01tb",
    ],
)
def test_arrays_at_odds_with_themselves(state: bytes) -> None:
    with pytest.raises(FormatError, match=r"^it"):
        load_plain(b"\x80\x02" + ARRAY + state + b".", "it")


@pytest.mark.parametrize(
    "change",
    [
        b"}U\x08__call__K\x01sb.",  # a new method by state
        b"N}U\x08__call__K\x01s\x86b.",  # … by slots
    ],
)
def test_stand_ins_cannot_be_changed(change: bytes) -> None:
    with pytest.raises(FormatError, match="no pickle, cut short or damaged"):
        load_plain(b"\x80\x02c_codecs\nencode\n" + change, "it")
    assert load_plain(pickle.dumps(b"abc", 2), "it") == b"abc"


def test_bytes_of_other_encodings_are_refused() -> None:
    import codecs

    with pytest.raises(FormatError, match="latin1"):
        load_plain(pickle.dumps(Calls(codecs.encode, "abc", "rot13"), 2), "it")


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"hello", b"\x80\x02]q\x00.."[:-2], b"\x80\x7f.", b"\x80\x02(."])
def test_what_is_no_pickle(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^it is no pickle, cut short or damaged"):
        load_plain(data, "it")


def test_numbers_that_ask_for_gigabytes() -> None:
    with pytest.raises(FormatError, match="beyond the file's size"):
        load_plain(b"\x80\x02]r\xff\xff\xff\xff.", "it")
    with pytest.raises(FormatError, match="no pickle, cut short"):
        load_plain(b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00ab.", "it")


def test_any_flipped_byte_is_read_or_refused() -> None:
    """Nothing but a FormatError comes out."""
    good = pickle.dumps({"data": np.arange(12, dtype=np.uint8).reshape(2, 6), "names": ["a", "b"]}, 2)
    rng, refused = np.random.default_rng(0), 0
    for _ in range(3000):
        data = bytearray(good)
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            load_plain(bytes(data), "it")
        except FormatError:
            refused += 1
    assert refused > 500
