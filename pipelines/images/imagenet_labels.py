"""Labels of ImageNet's flat validation folder: Kaggle's LOC_val_solution.csv, or the development kit's two files.

LOC_val_solution.csv                          ImageId,PredictionString: the image's stem; "<wnid> x y x y …" of boxes
ILSVRC2012_validation_ground_truth.txt        line i: the ILSVRC2012_ID of image ILSVRC2012_val_<i, eight digits>
meta.mat                                      "synsets": the WordNet id of each ILSVRC2012_ID
"""

from __future__ import annotations

import io
import re
from typing import Any

from pipelines.images.file_list import FileEntry, FileList
from shards.errors import FormatError

SOLUTION, TRUTH, SYNSETS = "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
WNID = re.compile(r"n\d{8}")


def validation_wnids(files: FileList) -> dict[str, str]:
    """WordNet id of each validation image by its stem; empty where no such file lies there.

    Raises FormatError for a file that is there and is not what it should be.
    """
    if (note := _note(files, SOLUTION)) is not None:
        return _of_solution(_read(files, note), note.name)
    truth, synsets = _note(files, TRUTH), _note(files, SYNSETS)
    if truth is None or synsets is None:
        return {}
    wnids = _of_synsets(_read(files, synsets), synsets.name)
    numbers = _read(files, truth).decode("utf-8", "replace").split()
    for number in numbers:
        if number not in wnids:
            raise FormatError(f"{truth.name} has {number!a}, which {synsets.name} does not know; fetch the kit again")
    return {f"ILSVRC2012_val_{i:08d}": wnids[number] for i, number in enumerate(numbers, 1)}


def _of_solution(data: bytes, where: str) -> dict[str, str]:
    found = {}
    for line in data.decode("utf-8", "replace").splitlines()[1:]:
        stem, _, boxes = line.partition(",")
        wnid = boxes.strip('" ').partition(" ")[0]
        if stem and not WNID.fullmatch(wnid):
            raise FormatError(f"{where}: the line of {stem!a} has no WordNet id; fetch it again")
        found[stem] = wnid
    return found


def _of_synsets(data: bytes, where: str) -> dict[str, str]:
    """ILSVRC2012_ID, as text, to WordNet id."""
    from scipy.io import loadmat

    try:
        synsets: Any = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        found = {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets.ravel()}
    except Exception as error:  # whatever a MATLAB file that is none makes SciPy raise
        raise FormatError(f"{where} is not the development kit's table of synsets; fetch it again") from error
    if not all(WNID.fullmatch(wnid) for wnid in found.values()):
        raise FormatError(f"{where} has synsets without a WordNet id; fetch the kit again")
    return found


def _note(files: FileList, name: str) -> FileEntry | None:
    return next((note for note in files.notes if note.name.rpartition("/")[2] == name), None)


def _read(files: FileList, note: FileEntry) -> bytes:
    try:
        return files.reader.read(note.name, note.offset, note.length)
    except ValueError as error:
        raise FormatError(f"{note.name}: {error}; fetch it again") from error
