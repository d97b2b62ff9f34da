"""A run to the Hugging Face hub: its files as they are, their checksums, and a card made from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seqjepa.files import SUMS, read_checked
from seqjepa.hub import is_run_file
from seqjepa.model_card import model_card
from seqjepa.report.runs import read_record
from seqjepa.training.checkpoint import read_weights
from seqjepa.training.run_files import CONFIG, EVALUATED, METRICS, RUN, STATE, WEIGHTS
from shards.errors import UsageError
from shards.files import sha256_of_bytes
from shards.hub import HubAddress
from shards.hub_card import CARD, card_that_stays, licence_of, sealed
from shards.hub_push import Pushed, PushOptions, open_for_push, push_files, push_target, refuse_others


@dataclass(frozen=True)
class RunPush:
    """What is to be pushed, read once: a trainer may go on meanwhile. files: README.md and SHA256SUMS too."""

    address: HubAddress
    files: dict[str, bytes]
    message: str

    @property
    def card(self) -> str:
        return self.files[CARD].decode()


def prepare_run(run: Path, address: str, options: PushOptions, *, state: bool = False) -> RunPush:
    """Reads and checks everything; asks the hub nothing.

    UsageError: another address or licence. FormatError, ConfigError, DamageError: not a run, or one that is damaged.
    """
    where, licence = push_target(address, "model", run), licence_of(options.licence)
    record = read_record(run)
    _, epochs = read_weights(run / WEIGHTS)
    if state and not (run / STATE).exists():
        raise UsageError(f"{run} has no {STATE}; leave out --state")
    evaluated = sorted(path.name for path in run.iterdir() if EVALUATED.fullmatch(path.name))
    names = [CONFIG, RUN, *([METRICS] if (run / METRICS).exists() else []), *evaluated, WEIGHTS]
    files = {name: (run / name).read_bytes() for name in names if name != WEIGHTS}
    files |= {name: read_checked(run / name) for name in (WEIGHTS, *([STATE] if state else []))}
    sums = "".join(f"{sha256_of_bytes(data)}  {name}\n" for name, data in sorted(files.items())).encode()
    card = sealed(model_card(record, where, licence, epochs))
    done = "" if epochs is None else f", {epochs:g} of {record.config.optim.epochs} epochs"
    return RunPush(where, {CARD: card, SUMS: sums, **files}, options.message or f"{record.config.name}{done}")


def push_run(prepared: RunPush, options: PushOptions) -> tuple[Pushed, bool]:
    """Sends it in one commit; → also whether the card on the hub was edited there, and stays.

    UsageError: not logged in, no permission, public without being asked for, a repository of something else.
    FailureError: the hub cannot be reached, or stopped on the way; the same call goes on.
    """
    where, files = prepared.address, dict(prepared.files)
    listing = open_for_push(where, options.public)
    refuse_others(where, listing, is_run_file, RUN)
    stays = None if options.new_card else card_that_stays(where, listing)
    if stays is not None:
        del files[CARD]
    stale = [name for name in listing.files if is_run_file(name) and name not in prepared.files]
    return push_files(where, listing, files, prepared.message, stale=stale), stays is not None
