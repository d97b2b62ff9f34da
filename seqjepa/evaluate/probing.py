"""Every probe of an evaluation, on the features as they are, in contexts or in halves."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from tqdm import tqdm

from seqjepa.context_ssl.in_context import scores_in_context
from seqjepa.evaluate.fit_and_score import Bench, fit_and_score
from seqjepa.evaluate.halves import bench_of
from seqjepa.evaluate.measure import Measure
from seqjepa.evaluate.taken import NOTHING, Taken
from seqjepa.methods.base import Halved
from seqjepa.methods.context_ssl import ContextSSL
from seqjepa.training.checkpoint import LoadedRun

logger = logging.getLogger(__name__)


def take_all(
    loaded: LoadedRun, measures: list[Measure], bench: Bench, contexts: list[int], progress: bool
) -> tuple[Taken, dict[str, Any]]:
    """What probes gave, and what the protocol says of contexts and halves.

    Views of ContextSSL are probed after a context (in_context.py). Of methods with halves, each half is probed as the
    whole is: halves.invariant.NAME, halves.equivariant.NAME.
    """
    take = partial(_take, progress=progress)
    method = loaded.method
    if isinstance(method, ContextSSL):
        taken, context = scores_in_context(method, measures, bench, loaded.data.action, contexts, take)
        return taken, {"context": context}
    taken = take(measures, bench)
    if not isinstance(method, Halved):
        return taken, {}
    for half, columns in method.halves.items():
        taken = taken.joined(take(measures, bench_of(bench, columns), f"{half} half: ").named(f"halves.{half}.{{}}"))
    return taken, {"halves": {half: [c.start, c.stop] for half, c in method.halves.items()}}


def _take(measures: list[Measure], bench: Bench, of: str = "", *, progress: bool) -> Taken:
    taken = NOTHING
    with tqdm(measures, unit="probe", disable=None if progress else True, leave=False) as bar:
        for measure in bar:
            bar.set_description(f"probe {of}{measure.name}")
            found = fit_and_score(measure, bench)
            logger.info("%s%s: %s", of, measure.name, found.last)
            taken = taken.joined(found)
    return taken
