"""A run to the Hugging Face hub: its files as they are, their checksums, and a card made from them.

The card, README.md, has the method, data, recipe, numbers with protocol and intervals, and how to load it. Everything
in it is read from the run directory; what the run does not say is left out.
"""

from __future__ import annotations

import json
import logging
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqjepa.config import RunConfig
from seqjepa.data.actions import DECLARED, action_name, as_spec
from seqjepa.evaluate.metrics import LEVEL
from seqjepa.evaluate.results import WEIGHTS as SIDES
from seqjepa.evaluate.results import keyed_rows, protocol_lines, rounded
from seqjepa.files import SUMS, read_checked
from seqjepa.hub import is_run_file
from seqjepa.methods import METHODS
from seqjepa.paper.measures import value_at
from seqjepa.paper.metrics import ACCURACY, EXPLAINED, metric_of
from seqjepa.recipes import flatten, load_recipe, names
from seqjepa.report.groups import method_name
from seqjepa.report.runs import RunRecord, read_record
from seqjepa.training.checkpoint import read_weights
from seqjepa.training.run import DataInfo, data_info
from seqjepa.training.run_files import CONFIG, EVALUATED, METRICS, RUN, STATE, WEIGHTS
from shards.describe import term_in_words
from shards.errors import UsageError
from shards.machine.files import sha256_of_bytes
from shards.push.hub_card import CARD, licence_of, quoted, sealed
from shards.push.hub_push import Push, Pushed, PushOptions, open_for_push, push_files, push_target
from shards.stores.hub import HubAddress, open_hub

logger = logging.getLogger(__name__)
PAPER = "2505.03176"
PAPERS = {
    "byol": "2006.07733",
    "context_ssl": "2405.18193",
    "equimod": "2211.01244",
    "sen": "2204.11371",
    "sie": "2302.10283",
    "simclr": "2002.05709",
    "vicreg": "2105.04906",
    "vicreg_traj": "2403.14973",
}
"""arXiv numbers of methods that are not seq-JEPA's own paper's."""
MOST_IN_INDEX = 60


def model_card(record: RunRecord, address: HubAddress, licence: str, epochs: float | None) -> str:
    """record: of the run. licence: the hub's identifier, or "". epochs: of the weights; None where not noted."""
    data = data_info(record.identity, record.path / RUN)
    name = address.repo.partition("/")[2]
    sections = [
        f"# {name}",
        f"{method_name(record.config)}, trained on {_set_name(record)} with seqjepa.",
        *_loading(record, address),
        "## What it is",
        "\n".join(_facts(record, data, licence, epochs)),
        "## Numbers",
        *_numbers(record, epochs),
    ]
    return _head(record, name, licence, epochs) + "\n\n".join(sections) + "\n"


def _set_name(record: RunRecord) -> str:
    return str(record.identity.get("shards", {}).get("name") or record.dataset or "a set that the run does not name")


def _papers(method: str) -> list[str]:
    own = [PAPERS[method]] if method in PAPERS else []
    return [*own, PAPER]


def _measured_before(record: RunRecord, epochs: float | None) -> str:
    """Where the numbers are of the weights at another epoch than the weights that go with them."""
    measured = record.protocol.get("trained_epochs")
    if measured is None or epochs is None or measured == epochs:
        return ""
    return (
        f"The trained weights were evaluated after {measured:g} epochs; the weights here have {epochs:g} behind them."
    )


def _head(record: RunRecord, name: str, licence: str, epochs: float | None) -> str:
    tags = ["seqjepa", "self-supervised-learning", record.config.method.replace("_", "-")]
    tags += [f"arxiv:{number}" for number in _papers(record.config.method)]
    lines = ["---", "library_name: seqjepa", *([f"license: {licence}"] if licence else [])]
    lines += ["pipeline_tag: image-feature-extraction", "tags:", *(f"- {quoted(tag)}" for tag in tags)]
    index = [] if _measured_before(record, epochs) else _model_index(record, name)
    return "\n".join([*lines, *index, "---", "", ""])


def _model_index(record: RunRecord, name: str) -> Iterator[str]:
    """Accuracies and R² of the trained weights, as the hub's pages of results have them."""
    metrics = list(_of_index(record))[:MOST_IN_INDEX]
    if not metrics:
        return
    dataset = record.dataset or _set_name(record)
    slug = re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-") or "shards"
    yield from ("model-index:", f"- name: {quoted(name)}", "  results:", "  - task:")
    yield from ("      type: image-feature-extraction", '      name: "probes on frozen features"', "    dataset:")
    yield from (f"      type: {quoted(slug)}", f"      name: {quoted(dataset)}", "    metrics:")
    for kind, label, value in metrics:
        yield from (f"    - type: {kind}", f"      value: {value!r}", f"      name: {quoted(label)}")


def _of_index(record: RunRecord) -> Iterator[tuple[str, str, float]]:
    kinds = {ACCURACY: "accuracy", EXPLAINED: "r_squared"}
    for key, label, (value, *_) in keyed_rows(dict(record.results)):
        found = metric_of(key)
        kind = kinds.get(found.scale) if found else None
        if kind and value is not None and math.isfinite(value):
            yield kind, label, value


def _loading(record: RunRecord, address: HubAddress) -> list[str]:
    lines = [
        "import seqjepa",
        "",
        f'model = seqjepa.load("{address}")',
        "z = model.embed(images)  # PIL, NumPy or torch images; resized and normalised as in training",
    ]
    if hasattr(METHODS.get(record.config.method), "aggregate"):
        lines.append("z_agg = model.aggregate(views, model.action_spec.between(params))  # of several views")
    code = "\n".join(lines)
    pull = f"seqjepa pull {address} --out runs/{address.repo.partition('/')[2]}"
    return ["## Use it", f"```python\n{code}\n```", f"    {pull}\n    seqjepa evaluate {address} --shards SHARDS"]


def _facts(record: RunRecord, data: DataInfo, licence: str, epochs: float | None) -> Iterator[str]:
    config, shards = record.config, record.identity.get("shards", {})
    links = ", ".join(f"[arXiv {number}](https://arxiv.org/abs/{number})" for number in _papers(config.method))
    yield f"* **Method** {method_name(config)} (`{config.method}`), {links}; fidelity `{config.fidelity}`"
    sizes = f"{data.width} × {data.height} px"
    seen = f"patches of {sizes} at fixations" if data.patch else f"views of {sizes}"
    augmented = "" if data.augment == "none" else f", augmented by `{data.augment}`"
    yield f"* **Data** {_set_name(record)}, split `{data.split}`, {seen}{augmented}"
    if "train" in shards:
        yield f"* **Fingerprint** of that split: `{shards['train']}`"
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (data.mean, data.std))
    yield f"* **Normalisation** of pixels in [0, 1]: mean {mean}; deviation {std}"
    yield f"* **Actions** {_actions(record)}"
    yield f"* **Encoder** {_encoder(record)}"
    yield f"* **Recipe** {_recipe(record)}"
    done = "epochs that the file does not tell" if epochs is None else f"{epochs:g} of {config.optim.epochs} epochs"
    yield f"* **Training** {done}, batch {config.optim.batch_size}, seed {config.seed}"
    versions = ", ".join(f"{name} {version}" for name, version in record.identity.get("versions", {}).items())
    if versions:
        yield f"* **Versions** {versions}"
    yield f"* **Licence** {licence or 'not stated'}"


def _actions(record: RunRecord) -> str:
    action = record.config.data.action
    spec = as_spec(action)
    if not spec.size:
        return "none"
    if action_name(action) != DECLARED:
        return f"`{action_name(action)}`, {spec.size} numbers"
    return f"{'; '.join(term_in_words(term) for term in spec.to_json())}: {spec.size} numbers"


def _recipe(record: RunRecord) -> str:
    """The packaged recipe and what differs from it; of another name, what differs from the defaults."""
    config = record.config
    packaged = config.name in names()
    usual = flatten((load_recipe(config.name) if packaged else RunConfig()).model_dump())
    ours = {key: value for key, value in flatten(config.model_dump()).items() if key != "name"}
    ours["model.pretrained"] = Path(config.model.pretrained).name  # folders of this machine are nobody's business
    changed = ", ".join(f"`{key}={value}`" for key, value in ours.items() if value != usual.get(key))
    if packaged:
        return f"`{config.name}`" + (f", with {changed}" if changed else ", as it is packaged")
    return f"`{config.name}`; differs from the defaults in {changed or 'nothing'}"


def _encoder(record: RunRecord) -> str:
    model, note = record.config.model, record.identity.get("pretrained") or {}
    width = "" if model.backbone.startswith("timm:") else f", width {model.width:g}"
    begun = f", from the weights of {Path(model.pretrained).name}" if model.pretrained else ""
    digest = next((f" ({key} `{value}`)" for key, value in note.items() if key.startswith("sha256")), "")
    return f"{model.backbone}{width}{begun}{digest}{', frozen' if model.freeze else ''}"


def _numbers(record: RunRecord, epochs: float | None) -> list[str]:
    """A table for results.json and one for each transfer, trained beside untrained, with how they were measured."""
    if not record.trained and not record.untrained and not record.transfers:
        return ["The run was not evaluated when it was pushed."]
    parts = _table(record.results) if record.trained or record.untrained else []
    parts += filter(None, [_measured_before(record, epochs)])
    for name, results in record.transfers.items():
        parts += [f"### {name}", *_table(results)]
    return parts


def _table(results: Mapping[str, Any]) -> list[str]:
    shown = [k for k, head in enumerate(SIDES) if head in results]
    heads = [f"{SIDES[k]}" for k in shown]
    rows = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(shown)}"]
    for key, label, cells in keyed_rows(dict(results)):
        rows.append(f"| {label} | {' | '.join(_cell(results, SIDES[k], key, cells[k]) for k in shown)} |")
    said = "" if len(shown) == 2 else f" The {SIDES[1 - shown[0]]} weights were not evaluated."
    about = f"In brackets: {LEVEL:.0%} intervals, resampled over the validation samples.{said}"
    return ["\n".join(rows), about, "\n".join(f"* {line}" for line in protocol_lines(dict(results)))]


def _cell(results: Mapping[str, Any], head: str, key: str, value: float | None) -> str:
    if value is None:
        return "–"
    found = value_at(results, f"{head}.intervals.{key}")
    interval = f" [{rounded(found[0])}, {rounded(found[1])}]" if isinstance(found, Sequence) else ""
    return rounded(value) + interval


def prepare_run(run: Path, address: str, options: PushOptions, *, state: bool = False) -> Push:
    """Reads and checks everything, once: a trainer may go on meanwhile. Asks the hub nothing.

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
    message = options.message or f"{record.config.name}{done}"
    return Push(where, {CARD: card, SUMS: sums, **files}, message, is_run_file, RUN)


def push_run(prepared: Push, options: PushOptions) -> tuple[Pushed, bool]:
    """Sends it in one commit; → also whether the card on the hub was edited there, and stays.

    UsageError: not logged in, no permission, public without being asked for, a repository of something else.
    FailureError: the hub cannot be reached, or stopped on the way; the same call goes on.
    """
    where, listing = prepared.address, open_for_push(prepared, options.public)
    if {CONFIG, RUN} <= set(listing.files):
        there = open_hub(where.at(listing.commit), [CONFIG, RUN]).root
        before, now = _who(lambda name: (there / name).read_bytes()), _who(prepared.content)
        if before != now:
            said = "%s: %s replaces %s, which stays in the history: %s@%s"
            logger.warning(said, where, now, before, where, listing.commit[:12])
    return push_files(prepared, listing, options.new_card)


def _who(content: Callable[[str], bytes]) -> str:
    """Whose files these are, in words: recipe, method, seed and set. Those on the hub may hold anything."""
    try:
        config, shards = tomllib.loads(content(CONFIG).decode()), json.loads(content(RUN))["shards"]
        set_ = f"{shards['name']} ({str(shards['train'])[:8]})"
        return f"{config['name']}, method {config['method']}, seed {config['seed']}, on {set_}"
    except (ValueError, KeyError, TypeError):
        return "a run that cannot be read"
