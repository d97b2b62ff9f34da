"""COIL-100 in 3DIEBench's layout → a folder of photographs with a spreadsheet, as anybody might have them.

    python examples/coil100.py --source coil100-3die.tar.gz --out data/coil100

COIL-100 is 100 objects photographed on a turntable. The source has COIL100/<object>/<instance>/image_<k>.jpg beside
latent_<k>.npy (docs/3diebench-layout.md), a folder or a tar. The photographs are copied byte for byte. metadata.csv has
a row for each: the angle of the turntable in degrees, and once more as 3DIEBench has it (rot_x, rot_y, rot_z in rad).
actions.toml says that what takes a photograph to another is the difference of their angles.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

MEMBER = re.compile(r"(?:.*/)?([\w-]+)/([\w-]+)/(image|latent)_(\d{1,6})\.(?:jpg|npy)")
COLUMNS = ("file_name", "sequence", "label", "split", "angle", "rot_x", "rot_y", "rot_z")
ACTIONS = """\
# Between two photographs lies a turn of the turntable. Degrees are stored as rad.
[units]
angle = "deg"
rot_x = "rad"
rot_y = "rad"
rot_z = "rad"

[[action]]
op = "angle_difference"
columns = ["angle"]
"""
View = tuple[str, str, int]  # object, instance, number of the photograph


def members(source: Path) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of every file of a folder or tar."""
    if source.is_dir():
        yield from ((path.as_posix(), path.read_bytes()) for path in sorted(source.rglob("*_*.*")))
        return
    with tarfile.open(source, "r|*") as tar:
        for member in tar:
            if member.isfile() and (file := tar.extractfile(member)):
                yield member.name, file.read()


def write(source: Path, out: Path, validation: str) -> None:
    """Objects are labels, an object's instances are sequences; the instance called `validation` is for validation."""
    angles: dict[View, np.ndarray] = {}
    photographs: set[View] = set()
    for path, data in tqdm(members(source), desc="files", unit="", disable=None):
        if not (match := MEMBER.fullmatch(path)):
            continue
        view = (match[1], match[2], int(match[4]))
        if match[3] == "latent":
            angles[view] = np.load(io.BytesIO(data), allow_pickle=False)[:3]
            continue
        photographs.add(view)
        (out / match[1]).mkdir(parents=True, exist_ok=True)
        (out / file_name(view)).write_bytes(data)
    if not (both := sorted(photographs & set(angles))):
        raise SystemExit(f"error: {source} has no <object>/<instance>/image_<k>.jpg beside latent_<k>.npy")
    (out / "actions.toml").write_text(ACTIONS, encoding="utf-8")
    with (out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *(row(view, angles[view], validation) for view in both)])
    print(f"{out}: {len(both):,} photographs of {len({view[0] for view in both})} objects, metadata.csv, actions.toml")


def file_name(view: View) -> str:
    return f"{view[0]}/{view[1]}_{view[2]:02d}.jpg"


def row(view: View, rotation: np.ndarray, validation: str) -> tuple[object, ...]:
    label, instance, _ = view
    split = "val" if instance == validation else "train"
    angle = round(float(np.degrees(rotation[2])), 9)  # 30, not 29.999999999999993
    return (file_name(view), f"{label}/{instance}", label, split, angle, *map(float, rotation))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a folder or a tar, compressed or not")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--validation", default="i5", help="the instance that is for validation (default: i5)")
    asked = parser.parse_args()
    if asked.out.exists():
        parser.error(f"{asked.out} is there already; give the name of a new folder")
    if not asked.source.exists():
        parser.error(f"{asked.source} is not there; give a folder or a tar in 3DIEBench's layout")
    write(asked.source, asked.out, asked.validation)


if __name__ == "__main__":
    main()
