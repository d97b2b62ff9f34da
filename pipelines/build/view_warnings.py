"""What may not be meant so in a table of views: a line for each thing, which names it and says what to do.

Letters: R rows, Q sequences, P parameters, T views of a training sequence.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from itertools import groupby

import numpy as np

from pipelines.archives import printable, read_content
from pipelines.build.transform import MOST_TURNS, view_size
from pipelines.sources.declared_actions import as_key, rotations_of
from pipelines.sources.decode import doubts
from pipelines.sources.split_folders import listed
from pipelines.sources.table import ViewTable
from shards.errors import few
from shards.schema import PRESET_ACTIONS, ActionTerm

ANGLES = r"yaw|pitch|roll|rot\w*|angle|azim(uth)?|elev(ation)?|heading|bearing|theta|phi|deg(rees?)?"
ANGLE = re.compile(rf"(?<![a-z])({ANGLES})(?![a-z])", re.IGNORECASE)  # theta1, "yaw (deg)"
TIME = re.compile(r"(?<![a-z0-9])(time(stamp|step)?|stamp|n?secs?|t|step|frame|index|idx)(?![a-z0-9])", re.IGNORECASE)
DONE = re.compile(r"(?<![a-z])(actions?|act|commands?|cmd|keys?|buttons?|controls?|moves?)(?![a-z])", re.IGNORECASE)
WORDS = re.compile("(?<=[a-z])(?=[A-Z])")  # between those of cameraYaw
UPRIGHT = ("roll", "pitch", "yaw")
TURNS = re.compile("|".join(UPRIGHT), re.IGNORECASE)
RELATIVE = ("relative_rotation", "relative_pose")
TRIED = 64  # images
NAMED = 3
MOST_KINDS = 18  # Atari's
IRREGULAR = 2.5  # times the median distance in time
NOT_UNIT = 0.01
DAY = 86_400.0  # seconds: frames of one sequence are hardly that far apart
FAR, FEW = 4, 3  # how many spans of all other values, of which there are so many different ones


def warnings_of(table: ViewTable, context: int) -> list[str]:
    """Lines; each names what may be wrong, and what to do."""
    return [
        *_of_columns(table),
        *_of_steps(table),
        *_of_lengths(table, context + 1),
        *_of_times(table),
        *_of_classes(table),
        *_of_categories(table),
        *_of_kinds(table),
    ]


def _terms(table: ViewTable, *ops: str) -> list[tuple[ActionTerm, np.ndarray]]:
    """The action's terms of these kinds, each with its columns, float64 [R, n]."""
    return [(term, table.columns(term.columns)) for term in table.terms if term.op in ops]


def _constant(table: ViewTable) -> Iterator[str]:
    """A line for each column that never changes; one for all of a vector's (pose.0 …). Rotations and poses have numbers
    that never change: the last row of a matrix, what a turn about one axis leaves alone."""
    if len(table.of) < 2:
        return
    turns = {name for term, _ in _terms(table, *RELATIVE) for name in term.columns}
    values = {
        field.name: float(column[0])
        for field, column in zip(table.fields, table.params.T, strict=True)
        if column.min() == column.max() and field.name not in turns
    }
    for vector, group in groupby(values, key=lambda name: name.partition(".")[0]):
        names = list(group)
        if len(names) == 1:
            yield f"{names[0]} is constant, {values[names[0]]:g} in every row"
        else:
            yield f"{len(names)} numbers of {vector} are constant: {', '.join(names)}"


def _of_marks(table: ViewTable) -> Iterator[str]:
    """A line for each column (one for all of a vector's) whose least or largest value stands in several rows and lies
    far from all others, as −9999 and 1e20 do where they stand for no value."""
    told = set[str]()
    for field, single in zip(table.fields, table.params.T, strict=True):
        column, vector = single.astype(np.float64), field.name.partition(".")[0]
        ends = column.min(), column.max()
        rest = np.unique(column[(column != ends[0]) & (column != ends[1])])
        for end in ends if len(rest) >= FEW and vector not in told else ():
            rows = np.flatnonzero(column == end)
            if len(rows) > 1 and np.abs(rest - end).min() > FAR * np.ptp(rest):
                unit, where = "" if field.unit == "1" else f" {field.unit}", table.where(int(rows[0]))
                told.add(vector)
                yield (
                    f"{field.name} is {end:g}{unit} in {len(rows)} rows (e.g. {where}), and mostly from {rest[0]:g} to "
                    f"{rest[-1]:g}{unit}: if it stands for no value, leave those rows out"
                )


def _of_columns(table: ViewTable) -> Iterator[str]:
    yield from _constant(table)
    yield from _of_marks(table)
    for i, field in enumerate(table.fields):
        low, high = float(table.params[:, i].min()), float(table.params[:, i].max())
        spread = f"{field.name} goes from {low:g} to {high:g}"
        if field.unit == "rad" and max(abs(low), abs(high)) > MOST_TURNS and high - low > np.pi:
            yield f'{spread} rad, more than a turn: if these are degrees, declare {as_key(field.name)} = "deg"'
        elif field.unit == "1" and _is_angle(field.name) and max(abs(low), abs(high)) > MOST_TURNS:
            yield f'{spread} without a unit: an angle in degrees? Then declare {as_key(field.name)} = "deg"'
    yield from _of_wrapping(table)
    yield from _of_still(table)
    yield from _of_turns(table)
    yield from _of_quaternions(table)
    yield from _of_signs(table)
    if table.actions is None:
        implied = (k for k in ("rotation", "position") if set(table.names).issuperset(PRESET_ACTIONS[k].columns))
        without = next((f"training takes --action {k}, as columns are called" for k in implied), "")
        without = without or "methods that need actions will not train"
        yield f"no action is declared: give an actions.toml, or --action; {without}"


def _is_angle(name: str) -> bool:
    return ANGLE.search(WORDS.sub("_", name)) is not None


def _of_wrapping(table: ViewTable) -> Iterator[str]:
    """Angles whose differences are taken as if they were no angles."""
    units, same = {field.name: field.unit for field in table.fields}, np.diff(table.of) == 0
    for term, columns in _terms(table, "difference"):
        for name, values in zip(term.columns, columns.T, strict=True):
            turns = np.abs(values).max() <= MOST_TURNS and (np.abs(np.diff(values))[same] > np.pi).any()
            if units[name] == "rad" and np.ptp(values) > np.pi:
                yield f"difference of {name} takes 359° to 1° as −358°: angle_difference takes it as 2°"
            elif units[name] == "1" and _is_angle(name) and turns:
                how = f'Then declare {as_key(name)} = "rad", and take its angle_difference'
                yield f"{name} changes by more than π from row to row, as where an angle goes round: is it one? {how}"


def _of_still(table: ViewTable) -> Iterator[str]:
    """What an action takes the change of, and never changes from view to view, such as what tells objects apart."""
    same = np.diff(table.of) == 0
    for term, values in _terms(table, "difference", "angle_difference", *RELATIVE):
        still = (np.diff(values, axis=0)[same] == 0).all(0) & same.any()
        if (still.all() or term.op not in RELATIVE) and np.ptp(values[:, still], axis=0).any():
            told = few([name for name, stays in zip(term.columns, still, strict=True) if stays])
            yield f"{term.op} of {told} is 0 throughout: nothing of it changes within a sequence"


def _of_turns(table: ViewTable) -> Iterator[str]:
    """Yaw, pitch and roll in another order than that of the axes about which they turn where z is up."""
    for term, _ in _terms(table, *RELATIVE):
        found = [match[0].lower() for name in term.columns[-3:] if (match := TURNS.search(name))]
        if term.form == "euler_xyz" and sorted(found) == sorted(UPRIGHT) and found != list(UPRIGHT):
            yield (
                f"{', '.join(term.columns[-3:])} are taken for turns about the fixed axes x, then y, then z; where "
                f"x is ahead and z up these are {', '.join(UPRIGHT)}"
            )


def _of_quaternions(table: ViewTable) -> Iterator[str]:
    """Columns that are taken for quaternions and are far from the length of one, to which they are brought."""
    for term, values in _terms(table, *RELATIVE):
        if term.form == "quaternion_xyzw":
            columns, values = term.columns[-4:], values[:, -4:]
            lengths = np.linalg.norm(values, axis=1)
            w, flat = values[:, 0], not values[:, 1:3].any()  # flat: turns about z, of cars, or about x
            named = "".join(name[-1].lower() for name in columns) == "xyzw"
            if not named and np.ptp(w) > 0 and (flat or w.min() >= 0 > values[:, 3].min()):
                yield f"{', '.join(columns)} are taken for x, y, z, w and look like w, x, y, z: name them as x, y, z, w"
            if np.abs(lengths - 1).max() > NOT_UNIT:
                spread = f"from {lengths.min():.3g} to {lengths.max():.3g}"
                yield f"{', '.join(columns)} have lengths {spread}, a rotation 1: they are divided by them"


def _of_signs(table: ViewTable) -> Iterator[str]:
    """Rotations that come as q in some rows and −q in others, which are one rotation, and are two actions.

    Of the paper's action nothing is said, whose quaternions are as they come.
    """
    same = np.diff(table.of) == 0
    for term, values in _terms(table, *RELATIVE):
        if term.result == "quaternion" and term != PRESET_ACTIONS["rotation"].terms[0]:
            with contextlib.suppress(ValueError):  # no rotations, a mistake already
                q = _quaternions(term, values)
                turned = int(((q[:-1] * q[1:]).sum(1)[same] < 0).sum())
                if turned:
                    yield (
                        f"{term.op} of {term.columns[0]} …: {turned} of {same.sum()} rotations from row to row have a "
                        'negative w, for q and −q are one rotation: result = "canonical" in the term has one of them'
                    )


def _quaternions(term: ActionTerm, values: np.ndarray) -> np.ndarray:
    """float64 [R, 4] (x, y, z, w) of the columns of a rotation or pose [R, n], with the sign that actions have."""
    from scipy.spatial.transform import Rotation

    if term.form == "quaternion_xyzw":
        return values[:, -4:]
    if term.form == "euler_xyz":
        return Rotation.from_euler("xyz", values[:, -3:]).as_quat()
    return Rotation.from_matrix(rotations_of(values)).as_quat()


def _of_steps(table: ViewTable) -> Iterator[str]:
    if not table.ordered:
        for name in (name for name in table.names if TIME.search(WORDS.sub("_", name))):
            how = f"--timestamp {shlex.quote(name)}, or --step {shlex.quote(name)}"
            yield f"nothing orders the frames, which are drawn at random: does {name}? Then {how}"
        return
    gaps = (np.diff(table.of) == 0) & (np.diff(table.steps) > 1)
    if gaps.any():
        row = int(np.flatnonzero(gaps)[0])
        missing = int((np.diff(table.steps)[gaps] - 1).sum())
        places = f"{table.where(row)} and {table.where(row + 1).rpartition(', ')[2]}"
        sequences = len(np.unique(table.of[1:][gaps]))
        times = ". Times? A table has --timestamp for them, tars --ordered" if 2 * gaps.sum() > len(gaps) else ""
        yield (
            f"steps have gaps: {missing} are missing in {sequences} of {len(table.sequences)} sequences, e.g. between "
            f"{places}; windows do not reach over them{times}"
        )


def _of_lengths(table: ViewTable, needed: int) -> Iterator[str]:
    parted = (np.diff(table.of) != 0) | ((np.diff(table.steps) > 1) & table.ordered)
    starts = np.append(0, np.flatnonzero(parted) + 1)
    longest = np.zeros(len(table.sequences), np.int64)
    np.maximum.at(longest, table.of[starts], np.diff(np.append(starts, len(table.of))))
    if len(short := np.flatnonzero(longest < needed)):
        what = f"{len(short)} of {len(table.sequences)} sequences have fewer than the {needed} frames of a context of "
        names = listed([str(table.sequences[i]) for i in short.tolist()])
        gap = " without a gap" if (longest < np.diff(table.bounds)).any() else ""
        yield f"{what}{needed - 1} and its target{gap} ({names}): training leaves them out"


def _of_times(table: ViewTable) -> Iterator[str]:
    for i, field in enumerate(table.fields):
        if field.unit != "s" or "time" not in field.name.lower() or not table.ordered:
            continue
        between = np.diff(table.params[:, i].astype(np.float64))[np.diff(table.of) == 0]
        usual = float(np.median(between)) if len(between) else 0.0
        if usual > 0 and between.max() > IRREGULAR * usual:
            yield f"{field.name}: frames are {usual:g} s apart mostly, and {between.max():g} s at most"
        if usual > DAY:
            units = f"--unit {field.name}=ms, us or ns if it is not in s"
            yield f"{field.name}: frames are {usual:g} s apart mostly; {units}"


def _of_categories(table: ViewTable) -> Iterator[str]:
    """Values of categorical terms that training never sees."""
    trained = np.array([split == "train" for split in table.splits])[table.of]
    for term, values in _terms(table, "categorical") if trained.any() else ():
        known = np.array(term.values, np.float32)
        if len(never := known[~np.isin(known, values[trained])]):
            lost = few([f"{value:g}" for value in never])
            yield f"no training row has {term.columns[0]} {lost}, a value of its term"


def _of_kinds(table: ViewTable) -> Iterator[str]:
    """Commands that are numbers of kinds, or that are taken from the row that they led to, as categories are."""
    how = "give a list of 0 and 1 in a row, one for each kind, as command"
    for term, values in _terms(table, "categorical", "command"):
        for name, column in zip(term.columns, values.T, strict=True):
            kinds = np.unique(column)
            if term.op == "categorical" and table.ordered and DONE.search(WORDS.sub("_", name)):
                yield f"categorical of {name} is that of the second view: is it what was done at the first? Then {how}"
            if term.op == "command" and 2 < len(kinds) <= MOST_KINDS and (kinds == np.arange(len(kinds))).all():
                yield f"command of {name} is one of {len(kinds)} whole numbers: are they kinds of commands? Then {how}"


def _of_classes(table: ViewTable) -> Iterator[str]:
    by_split: dict[str, set[str]] = {}
    for split, label in zip(table.splits, table.labels, strict=True):
        if split is not None and label is not None:
            by_split.setdefault(split, set()).add(label)
    for split, names in by_split.items():
        if "train" in by_split and (strange := names - by_split["train"]):
            yield f"{len(strange)} classes of {split} are not in train: {listed(strange)}"
    unlabelled = sum(label is None for label in table.labels)
    if 0 < unlabelled < len(table.labels):
        yield f"{unlabelled} of {len(table.labels)} sequences have no label"


def warnings_of_images(table: ViewTable, size: int | None, *, readable: bool = True) -> Iterator[str]:
    """As warnings_of, of some images. `readable` False: some may not be there, which is a mistake."""
    sizes, odd = Counter[tuple[int, int]](), list[str]()
    for name, content in table.pictures.sample(TRIED):
        try:
            with doubts() as found:
                sizes[view_size("", read_content(content))] += 1
            odd += [f"{printable(name)}: {line}" for line in found]
        except ValueError as error:
            if readable:
                yield f"{printable(name)}: {error}"
    if odd:
        yield f"{len(odd)} of {sizes.total()} images that were tried may be other than meant, e.g. {odd[0]}"
    if len(sizes) > 1 and size is None:
        shown = ", ".join(f"{width}×{height}" for (height, width), _ in sizes.most_common(NAMED))
        yield f"images are of {len(sizes)} sizes ({shown}{', …' if len(sizes) > NAMED else ''}): give --size"
