"""ContextSSL: the method and its transformer."""

from __future__ import annotations

from seqjepa.methods.context_ssl.method import ENVIRONMENTS, PARAMS, ContextSSL, absolute_parameters

__all__ = ["ENVIRONMENTS", "PARAMS", "ContextSSL", "absolute_parameters"]
