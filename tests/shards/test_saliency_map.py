"""The codec of saliency maps, against KL computed by scipy and values computed by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import entropy

from shards.errors import FormatError
from shards.pixels import npy_bytes
from shards.saliency_map import HEADER, decode_map, encode_map, map_headers, map_lengths, map_problem, map_shape
from shards.schema import MAX_SIDE

STORAGES = ["float16", "log8"]


def realistic(seed: int, side: int = 96) -> np.ndarray:
    """float64 [side, side]: a few Gaussians of different widths on a floor, about 8 nats deep."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] + 0.5
    density = np.full((side, side), 10 ** rng.uniform(-3.5, -2))
    for _ in range(rng.integers(1, 6)):
        centre, sigma = rng.uniform(0, side, 2), side * rng.uniform(0.03, 0.2)
        squares = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
        density += rng.uniform(0.1, 1) * np.exp(-squares / (2 * sigma**2))
    return density / density.sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(entropy(p.ravel(), q.ravel().astype(np.float64)))


@pytest.mark.parametrize(("storage", "mean_limit", "worst_limit"), [("float16", 1e-7, 1e-6), ("log8", 1e-4, 2e-4)])
def test_divergence_from_the_original(storage: str, mean_limit: float, worst_limit: float) -> None:
    found = [kl(p, decode_map(encode_map(p, storage), storage)) for p in map(realistic, range(100))]
    assert np.mean(found) < mean_limit
    assert max(found) < worst_limit
    assert min(found) > 0, "a divergence of 0 would mean that nothing was compared"


@pytest.mark.parametrize("storage", STORAGES)
def test_what_comes_back_is_a_float32_density(storage: str) -> None:
    p = realistic(1)
    parts = encode_map(p, storage)
    found = decode_map(parts, storage)
    assert (found.dtype, found.shape) == (np.float32, (96, 96))
    assert found.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found, p, rtol=6e-4 if storage == "float16" else 0.025)
    assert encode_map(p * 1e-30, storage) == parts, "the scale does not matter"
    assert encode_map(p * 1e300, storage) == encode_map(p * 1e300 / 2**10, storage)


def test_members_are_what_the_format_says() -> None:
    """Read with plain numpy and decoded by the formulas of the README."""
    p = realistic(2)
    (half,) = (np.load(io.BytesIO(part), allow_pickle=False) for part in encode_map(p, "float16"))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, p * p.size, rtol=5e-4)
    levels, limits = (np.load(io.BytesIO(part), allow_pickle=False) for part in encode_map(p, "log8"))
    assert (levels.dtype, levels.shape, limits.dtype, limits.shape) == (np.uint8, (96, 96), np.float32, (2,))
    logs = np.log(p * p.size)
    np.testing.assert_allclose(limits, [logs.min(), logs.max()], rtol=1e-5)
    np.testing.assert_allclose(limits[0] + levels / 255 * (limits[1] - limits[0]), logs, atol=np.ptp(logs) / 500)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (300, 300)])
def test_one_bright_pixel(storage: str, size: tuple[int, int]) -> None:
    """At 300 × 300 its p·H·W is more than half precision holds."""
    p = np.zeros(size)
    p[-1, -1] = 1
    found = decode_map(encode_map(p, storage), storage)
    assert found.shape == size
    assert found[-1, -1] == pytest.approx(1, abs=2e-6)
    if storage == "float16":
        assert (found == p).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_positive_stays_positive(storage: str) -> None:
    p = gaussian_filter(np.eye(64), 2) + 1e-30
    assert (decode_map(encode_map(p, storage), storage) > 0).all()
    flat = decode_map(encode_map(np.full((5, 4), 0.3, np.float32), storage), storage)
    np.testing.assert_allclose(flat, np.full((5, 4), 1 / 20), rtol=1e-6)


BAD = {
    "a map with NaN or infinite values": [np.nan, np.inf, -np.inf],
    "a map with negative values": [-1e-9],
}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("found", "value"), [(found, value) for found, values in BAD.items() for value in values])
def test_impossible_values_are_refused(storage: str, found: str, value: float) -> None:
    p = realistic(3)
    p[5, 7] = value
    with pytest.raises(FormatError, match=found):
        encode_map(p, storage)


@pytest.mark.parametrize("storage", STORAGES)
def test_no_mass_and_no_map_are_refused(storage: str) -> None:
    with pytest.raises(FormatError, match="a map with zero mass"):
        encode_map(np.zeros((4, 4)), storage)
    for bad in (np.ones(4), np.ones((1, 4, 4)), np.ones((0, 4)), np.ones((1, MAX_SIDE + 1)), np.ones((2, 2)) * 1j):
        with pytest.raises(FormatError, match="a map is numbers"):
            encode_map(bad, storage)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_stored_map_with_impossible_values_is_refused(value: float) -> None:
    values = np.ones((8, 12), np.float16)
    values[3, 3] = value
    with pytest.raises(FormatError, match="a map with"):
        decode_map([npy_bytes(values)], "float16")
    with pytest.raises(FormatError, match="a map with zero mass"):
        decode_map([npy_bytes(np.zeros((8, 12), np.float16))], "float16")


@pytest.mark.parametrize("limits", [(np.nan, 1), (0, np.nan), (0, np.inf), (-np.inf, 0), (2, 1)])
def test_a_stored_range_that_is_none_is_refused(limits: tuple[float, float]) -> None:
    levels = npy_bytes(np.zeros((8, 12), np.uint8))
    with pytest.raises(FormatError, match="impossible range"):
        decode_map([levels, npy_bytes(np.array(limits, np.float32))], "log8")
    with pytest.raises(FormatError, match="zero mass"):
        decode_map([levels, npy_bytes(np.array([-1e9, 0], np.float32))], "log8")


def forged(shape: str, descr: str = "<f2", fortran: str = "False") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        forged("(8192, 8192)"),
        forged("(99999, 99999)"),
        forged("(0, 5)"),
        forged("(2, 2)", "<f4") + bytes(8),
        forged("(2, 2)", ">f2") + bytes(8),
        forged("(2, 2)", "|O") + bytes(32),
        forged("(2, 2)", fortran="True") + bytes(8),
        forged("(2, 2, 1)") + bytes(8),
        forged("(2, 2)") + bytes(7),
        forged("(2, 2)") + bytes(9),
        forged("(2, __import__('os'))") + bytes(8),
    ],
)
def test_a_forged_header_is_refused_before_anything_is_allocated(data: bytes) -> None:
    for parts, storage in (([data], "float16"), ([data, b""], "log8"), ([], "float16"), ([data, data], "float16")):
        with pytest.raises(FormatError, match=r"not the \.npy of a"):
            map_shape(parts, storage)


def test_the_forger_can_write_what_is_allowed() -> None:
    assert [forged("(2, 3)")] == map_headers(2, 3, "float16")
    assert map_shape([forged("(2, 3)") + bytes(12)], "float16") == (2, 3)


@pytest.mark.parametrize("storage", STORAGES)
def test_lengths_follow_from_the_size(storage: str) -> None:
    sizes = [(1, 1), (96, 96), (5, 1000)]
    parts = [encode_map(np.ones(size), storage) for size in sizes]
    found = map_lengths(np.array([h * w for h, w in sizes]), storage)
    assert found.tolist() == [[len(part) for part in members] for members in parts]
    for size, members in zip(sizes, parts, strict=True):
        assert all(part.startswith(head) for part, head in zip(members, map_headers(*size, storage), strict=True))
    assert all(len(head) == HEADER for h, w in [*sizes, (MAX_SIDE, MAX_SIDE)] for head in map_headers(h, w, storage))
    assert map_problem(parts[1], storage, 96, 96) is None
    assert map_problem(parts[1], storage, 96, 95) == "a map of another size than its image: 96×96, the image is 96×95"
