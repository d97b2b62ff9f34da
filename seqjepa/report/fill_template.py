"""HTML from the jinja2 templates of render/templates/, which escape every value."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from seqjepa.paper.metrics import ARROWS, judged

MAKER = "seqjepa report"
SIGN = f"made by {MAKER}"
"""What a report holds, so that one replaces a report of before and nothing else."""


def fill(template: str, **values: object) -> Markup:
    """The HTML of a template, "table.html", with `values`. Raises jinja2.UndefinedError for a value that it lacks."""
    return Markup(_environment().get_template(template).render(**values))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("seqjepa.report.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"ARROWS": ARROWS, "judged": judged}
    environment.filters |= {"subscripts": _subscripts, "minus": lambda text: str(text).replace("-", "−")}
    return environment


def _subscripts(text: str) -> Markup:
    """M_tr, M_val and z_AGG as they are printed."""
    shown = escape(text)
    for letter, below in (("M", "tr"), ("M", "val"), ("z", "AGG")):
        shown = shown.replace(f"{letter}_{below}", Markup(f"{letter}<sub>{below}</sub>"))
    return shown
