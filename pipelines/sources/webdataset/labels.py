"""Labels of samples, numbers or names, and the classes that they are of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipelines.archives import printable
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.webdataset.samples import TarSample, TarSamples
from shards.errors import UsageError

LARGEST_LABEL = 1_000_000
NO_LABEL = -1

Label = int | str | None


def read_classes(path: Path) -> tuple[str, ...]:
    """Names, one a line, in the order of their numbers. UsageError: unreadable, an empty line, one name twice."""
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--classes {path} cannot be read ({error}); give a text file, a name a line") from error
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise UsageError(f"--classes {path}: line {names.index('') + 1 if names else 1} is empty; each names a class")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"--classes {path}: {printable(twice)} stands twice")
    return tuple(names)


class Labels:
    """Labels of samples as they come, numbers or names, and then the classes."""

    def __init__(self, field: str | None, classes: tuple[str, ...] | None):
        self.field = field
        self.known = {name: number for number, name in enumerate(classes)} if classes else None

    def of(self, tars: TarSamples, sample: TarSample) -> Label:
        """None: it has none. ValueError: no number or name, or none that --classes has."""
        if self.field is not None:
            value = tars.fields(sample).get(self.field)
        else:
            value = None if sample.cls is None else _number_or_name(tars.content(sample.tar, sample.cls))
        if value is None or value == NO_LABEL:
            return None
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise ValueError(f"its label is {value!r:.40}; a number from 0 or a name is one")
        if isinstance(value, int) and not 0 <= value < LARGEST_LABEL:
            raise ValueError(f"its label is {value}; −1 (none) to {LARGEST_LABEL - 1} are allowed")
        if self.known is None:
            return value
        number = self.known.get(value) if isinstance(value, str) else value
        if number is None or number >= len(self.known):
            raise ValueError(f"its label is {value!r:.40}, which is none of the {len(self.known)} of --classes")
        return number

    def classes(self, labels: Iterable[Label], mistakes: Mistakes) -> tuple[str, ...]:
        """Their names: those given; else numbers from 0 to the largest, or sorted names."""
        if self.known is not None:
            return tuple(self.known)
        found = {label for label in labels if label is not None}
        names = {label for label in found if isinstance(label, str)}
        if names and len(names) < len(found):
            number = next(label for label in found if isinstance(label, int))
            mistakes.add(f"some labels are numbers ({number}) and some names ({min(names)}); give --classes")
        if names:
            return tuple(sorted(names))
        return tuple(str(number) for number in range(max((int(label) for label in found), default=-1) + 1))


def _number_or_name(data: bytes) -> int | str:
    try:
        text = data.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError("its cls is not UTF-8") from error
    return int(text) if text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() else text
