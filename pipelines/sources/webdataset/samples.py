"""Samples of webdataset tars: which members belong together, what each is, what is wrong with any.

webdataset itself groups members by key (`group_by_keys`: the key ends at the first dot of the file's name, suffixes in
lower case). Only its tar reader is replaced, for Python's `tarfile` takes a damaged header for the end of the archive:
that would be a shorter set. Nothing of a sample is ever unpickled: images, JSON, cls and plain .npy are known, what
else there is is counted and left alone.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pipelines.archives import FILE, FOLDER, TRAILING, ArchiveMember, LeftOut, is_utf8, printable
from pipelines.archives.tar import TarStream
from pipelines.sources.decode import SUFFIXES, check_size
from pipelines.sources.files import FileReader
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.webdataset.options import TarFile
from shards.errors import FormatError
from shards.json_fields import strict_json

RAW = ".npy"  # pixels as they are
IMAGES = tuple(suffix[1:] for suffix in SUFFIXES)
META = re.compile(r"__[^/]*__($|/)")  # what webdataset passes over (tariterators.py, tar_file_iterator)
NUMBERED = re.compile(r"([0-9]{1,6})\.(.+)")
SMALL = ("json", "cls")  # read while the tar is walked
LARGEST_SMALL = 1 << 20  # bytes
LONGEST_NPY_HEADER = 10_000  # bytes, as NumPy allows


class Member(NamedTuple):
    """`name` as stored; where a FileReader finds it; its content, where it is small and was asked for."""

    name: str
    offset: int
    length: int
    data: bytes | None = None


class View(NamedTuple):
    """One image of a sample. `number`: of "03.jpg"; None for the only one."""

    number: int | None
    member: Member


@dataclass
class TarSample:
    """What one key of a tar has: images, in ascending order of their numbers; label; and JSON and arrays, each by the
    number of its image (None: of the sample as a whole), arrays also by name ("pose.npy": "pose"; "npy": "npy").
    """

    tar: int
    key: str
    views: list[View] = field(default_factory=list)
    json: dict[int | None, Member] = field(default_factory=dict)
    cls: Member | None = None
    arrays: dict[tuple[int | None, str], Member] = field(default_factory=dict)


class TarSamples:
    """All samples of plain tars, in their order.

    image  which members are the images, e.g. "left.jpg" or "png;jpg" (also of "03.png"), or "03.jpg" as the only one;
           None: those whose suffix is an image's
    """

    def __init__(self, tars: Sequence[TarFile], paths: Sequence[Path], image: str | None = None):
        self.tars, self.paths = tars, paths
        self.image = tuple(image.lower().split(";")) if image else None
        self.others = LeftOut()

    def where(self, tar: int, key: str) -> str:
        """For messages."""
        return f"{self.tars[tar].url}, sample {printable(key)}"

    def read(self, mistakes: Mistakes, last: int | None = None) -> Iterator[TarSample]:
        """Samples that are sound, of the first `last` tars; what is wrong with others goes to `mistakes`.

        FormatError for a tar that is cut or damaged.
        """
        for number, path in enumerate(self.paths[:last]):
            seen: set[str] = set()
            for sample in self._of_tar(number, path, mistakes):
                key = sample["__key__"]
                where = self.where(number, key)
                if key in seen:
                    mistakes.add(
                        f"{where}: its files lie in two places of the tar; pack them together (tar --sort=name)"
                    )
                    continue
                seen.add(key)
                try:
                    yield self._sorted_out(number, key, sample)
                except ValueError as error:
                    mistakes.add(f"{where}: {error}")

    def _of_tar(self, number: int, path: Path, mistakes: Mistakes) -> Iterator[dict[str, Any]]:
        """As webdataset groups them; a member that comes twice is a mistake, and left out."""
        from webdataset.tariterators import group_by_keys

        def note(error: Exception) -> bool:
            mistakes.add(f"{self.tars[number].url}: {str(error.args[0]).partition(' dict_keys')[0]}")
            return True

        yield from group_by_keys(self._members(number, path), handler=note)

    def _members(self, number: int, path: Path) -> Iterator[dict[str, Any]]:
        tar, size = self.tars[number], path.stat().st_size
        try:
            with (
                tqdm(
                    total=size, desc=f"listing {tar.name}", unit="B", unit_scale=True, disable=None, leave=False
                ) as bar,
                TarStream(path, bar.update, seek=True) as stream,
            ):
                for member in stream:
                    if self._is_wanted(tar, member):
                        small = member.name.lower().endswith(SMALL) and 0 <= member.length <= LARGEST_SMALL
                        data = stream.read() if small else None
                        found = Member(member.name, member.offset, member.length, data)
                        yield {"fname": member.name.removeprefix("./"), "data": found, "__url__": number}
        except FormatError as error:
            raise FormatError(str(error).replace(str(path), tar.url)) from error
        if stream.trailing:
            self.others.notes.append(f"{tar.url}: {TRAILING}")

    def _is_wanted(self, tar: TarFile, member: ArchiveMember) -> bool:
        """FormatError for what would be a sample's file in a folder, and is none in the tar."""
        name = member.name.removeprefix("./")
        if member.kind == FOLDER:
            return False
        base = name.rpartition("/")[2]
        if META.match(name):
            self.others.add("a file of webdataset's own", name)
        elif ".." in name.split("/"):
            raise FormatError(f"{tar.url} holds {printable(name)}, a name with '..'; pack it again without")
        elif base.startswith("."):
            self.others.hidden += 1
        elif "." not in base:
            self.others.add_other(name)
        elif member.kind != FILE:
            raise FormatError(
                f"{tar.url} holds {printable(name)} as a {member.kind}, which webdataset passes over; pack it again "
                "with tar -h --hard-dereference"
            )
        elif base.partition(".")[2].startswith("__"):
            raise FormatError(
                f"{tar.url} holds {printable(name)}: suffixes that begin with __ are webdataset's own (it drops a "
                "sample with __bad__); rename or remove it"
            )
        elif not is_utf8(name):
            raise FormatError(f"{tar.url} holds a file whose name is not UTF-8, {name!a}; rename it")
        else:
            return True
        return False

    def _sorted_out(self, tar: int, key: str, members: dict[str, Any]) -> TarSample:
        """ValueError: no image, or several that may be meant."""
        sample, left = TarSample(tar, key), []
        for suffix, member in members.items():
            if suffix.startswith("__"):
                continue
            numbered = NUMBERED.fullmatch(suffix)
            number, kind = (int(numbered[1]), numbered[2]) if numbered else (None, suffix)
            if self.image and suffix in self.image:
                sample.views.append(View(None, member))
            elif kind in (self.image or IMAGES):
                sample.views.append(View(number, member))
            elif kind == "json":
                sample.json[number] = member
            elif suffix == "cls":
                sample.cls = member
            elif kind == "npy" or kind.endswith(".npy"):
                sample.arrays[number, kind.removesuffix(".npy")] = member
            else:
                left.append(suffix)
        if not sample.views and not self.image:
            self._take_raw(sample)
        _check_views(sample, [suffix for suffix in members if not suffix.startswith("__")])
        for suffix in left:
            self.others.add_other(f"x.{suffix}")
        return sample

    def _take_raw(self, sample: TarSample) -> None:
        """Raw pixels, "npy" and "03.npy" of uint8 [H, W, 3], are images where there are no others."""
        found = [place for place in sample.arrays if place[1] == "npy"]
        raw = [place for place in found if self._is_pixels(sample.tar, sample.arrays[place])]
        for place in raw:
            sample.views.append(View(place[0], sample.arrays.pop(place)))

    def _is_pixels(self, tar: int, member: Member) -> bool:
        try:
            return is_pixels(*npy_layout(self.content(tar, member))[:2])
        except ValueError:
            return False

    def content(self, tar: int, member: Member) -> bytes:
        """ValueError: empty or too large."""
        if member.data is not None:
            return member.data
        return FileReader(self.paths[tar]).read(member.name, member.offset, member.length)

    def fields(self, sample: TarSample, number: int | None = None) -> dict[str, Any]:
        """What its JSON says, or that of its image `number`; {} without one. ValueError: no JSON object."""
        member = sample.json.get(number)
        if member is None:
            return {}
        record = strict_json(self.content(sample.tar, member), nan=True)
        if not isinstance(record, dict):
            raise ValueError(f"{printable(member.name)} is no JSON object")
        return record


def _check_views(sample: TarSample, suffixes: list[str]) -> None:
    """Sorts the images. ValueError: none, two for one place, or with and without numbers."""
    views = sample.views
    if not views:
        there = ", ".join(printable(suffix) for suffix in suffixes[:5])
        ends = f"a key ends at the first dot, an image with {', '.join(IMAGES)}"
        raise ValueError(f"no image (it has {there}; {ends}; or say which with --image)")
    numbers = [view.number for view in views]
    if len(views) > 1 and (None in numbers or len(set(numbers)) < len(numbers)):
        names = ", ".join(printable(view.member.name.rpartition("/")[2]) for view in views[:5])
        raise ValueError(f"{len(views)} images may be meant ({names}); say which with --image, e.g. --image jpg")
    views.sort(key=lambda view: view.number or 0)


def npy_layout(data: bytes) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    """(dtype, shape, Fortran order, where the values begin) of a .npy. ValueError: none, cut, of Python objects."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=LONGEST_NPY_HEADER)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("not a NumPy file") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ValueError(f"an array of {dtype}; numbers are read")
    if any(side < 0 for side in shape) or len(data) - file.tell() != math.prod(shape) * dtype.itemsize:
        raise ValueError("cut short or damaged: its values are not as many as it says")
    return dtype, shape, fortran, file.tell()


def read_npy(data: bytes) -> np.ndarray:
    """Numbers of a .npy, never of Python objects. ValueError as npy_layout."""
    dtype, shape, fortran, start = npy_layout(data)
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


def is_pixels(dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    return dtype == np.uint8 and len(shape) == 3 and shape[2] == 3


def read_raw(data: bytes) -> np.ndarray:
    """uint8 [H, W, 3] of a .npy. ValueError: it holds anything else."""
    pixels = read_npy(data)
    if not is_pixels(pixels.dtype, pixels.shape):
        raise ValueError(f"{pixels.dtype} of shape {list(pixels.shape)}; uint8 [H, W, 3] is an image")
    check_size(*pixels.shape[:2])
    return pixels
