"""torch.compile where it can be had: for a GPU, of fixed shapes; and a line where it cannot.

The training step has its own way of it (training/compiled.py): it has gradients, and ranks that must agree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from shards.errors import reason_of

logger = logging.getLogger(__name__)
FALLBACK = "%s are not compiled, and slower for it (%s); train.compile=false does not try"
LONGEST = 200


class CompiledForGpu:
    """`function` of tensors as one graph, for the largest batches there are.

    A graph is of one shape: with dynamic shapes, which torch takes after the first other batch, all later ones are
    slower. what: "augmentations", as a warning names it. combine: kernels that do not need each other become one.
    """

    def __init__(self, function: Callable[..., Any], what: str, combine: bool = False) -> None:
        self.what = what
        how: dict[str, Any] = {"options": {"combo_kernels": True}} if combine else {}
        self._graph = torch.compile(function, dynamic=False, fullgraph=True, **how)
        self._rows, self._tried = 0, False
        self._refused = ""

    def __call__(self, rows: int, *arguments: Any) -> Any:
        """function(*arguments) of a batch of `rows`; None where it is to be computed in another way.

        So are smaller batches, as an epoch's last, and all where there is no compiler for this GPU, which a line says.
        """
        if self._refused or rows < self._rows:
            return None
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        if not self._tried:
            device = next(x.device for x in tree_leaves(arguments) if isinstance(x, torch.Tensor))
            self._tried, self._refused = True, why_not(device)
        try:
            if not self._refused:
                found, self._rows = self._graph(*arguments), rows
                return found
        except TorchDynamoException as error:
            self._refused = in_short(error)
        logger.warning(FALLBACK, self.what, self._refused)
        return None


def why_not(device: torch.device) -> str:
    """What is missing to compile for a GPU (Triton, a C compiler, a GPU that Triton knows); empty: nothing."""
    try:
        torch.compile(lambda x: x + x, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:  # whatever Triton, gcc and ptxas raise where they are not there
        return in_short(error)
    return ""


def in_short(error: Exception) -> str:
    """Without torch's advice on how to debug it."""
    return reason_of(error).split(" Set TORCHDYNAMO_VERBOSE")[0][:LONGEST]
