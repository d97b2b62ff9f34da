"""Where each run comes from: settings that are not as usual, data, versions, machine, protocol."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from html import escape

from seqjepa.config import RunConfig
from seqjepa.evaluate.results import protocol_lines
from seqjepa.recipes import flatten
from seqjepa.report.records import RunRecord
from seqjepa.report.run_groups import Group, label
from seqjepa.training.run import CONFIG

DEFAULTS = "the defaults, which are the paper’s for 3DIEBench"


def provenance(groups: Sequence[Group]) -> str:
    """HTML: each run as a block that opens, in the order of the groups."""
    return "\n".join(_block(run) for group in groups for run in group.runs)


def differences_from_defaults(config: RunConfig) -> list[str]:
    """Settings as `--set` takes them, without the run's name."""
    usual = flatten(RunConfig().model_dump())
    return [f"{k}={v}" for k, v in flatten(config.model_dump()).items() if v != usual[k] and k != "name"]


def _block(record: RunRecord) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>\n" for name, value in _facts(record) if value)
    what = f"{label(record.config)}, {record.dataset}, seed {record.config.seed}"
    summary = f"<summary>{escape(record.name)} <small>{escape(what)}</small></summary>"
    return f"<details>\n{summary}\n<dl class=facts>\n{facts}</dl>\n</details>"


def _facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Names and HTML."""
    identity = record.identity
    changed = differences_from_defaults(record.config)
    yield "Folder", f"<code>{escape(str(record.path))}</code>"
    yield "Recipe", escape(record.config.name)
    yield "Differs from the defaults in", " ".join(f"<code>{escape(c)}</code>" for c in changed) or DEFAULTS
    yield "Command", f"<code>{escape(_command(record))}</code>"
    yield "Epochs", f"{len(record.epochs)} of {record.config.optim.epochs} logged"
    shards = identity.get("shards", {})
    yield "Shards", escape(", ".join(f"{k} {v}" for k, v in shards.items()))
    yield "Versions", escape(", ".join(f"{k} {v}" for k, v in identity.get("versions", {}).items()))
    yield "Hardware", escape(_hardware(record))
    if extended := identity.get("extended"):
        yield "Extended", escape("; ".join(f"from {e['from']} to {e['to']} epochs" for e in extended))
    yield "Protocol", "<br>".join(escape(line) for line in protocol_lines(dict(record.results)))
    yield "Weights evaluated", f"<code>{escape(str(record.protocol.get('model_sha256', '')))}</code>"


def _command(record: RunRecord) -> str:
    """As noted, else what trains the same again; of the shards no folder is known, but their fingerprint."""
    noted = record.identity.get("command")
    again = f"seqjepa train --shards SHARDS --recipe {shlex.quote(str(record.path / CONFIG))} --out ANOTHER_FOLDER"
    return noted if isinstance(noted, str) else again


def _hardware(record: RunRecord) -> str:
    devices = dict.fromkeys(
        f"{line.get('devices', 1)} × {line['device']}" for line in record.epochs if line.get("device")
    )
    seconds = sum(float(line.get("seconds", 0)) for line in record.epochs)
    took = f", {seconds / 3600:.2f} h of training" if seconds else ""
    return f"{', '.join(devices) or 'not recorded'}{took}"
