"""A server's answer to a request for a file, or for what is still missing of it: urllib's, and what it means."""

from __future__ import annotations

import contextlib
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, InvalidURL
from typing import Any

from shards.errors import FailureError

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may be another one a moment later."""
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
LARGEST = 1 << 42  # bytes of a file


@dataclass(frozen=True)
class Origin:
    """What a part is a part of. validator: what the server calls this version, for If-Range; "": it calls it nothing.

    total: bytes of the whole file, 0 for unknown.
    """

    url: str
    validator: str
    total: int


class TransientError(Exception):
    """An attempt that may go well another time. asked: seconds that the server wants to be left alone."""

    def __init__(self, why: str, asked: float | None = None) -> None:
        super().__init__(why)
        self.asked = asked


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Followed to http and https only, and never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith(("https://", "http://")) or (
            req.full_url.startswith("https://") and not newurl.startswith("https://")
        ):
            raise FailureError(f"{req.full_url} leads to {newurl!r:.200}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def answer(origin: Origin, have: int, timeout: float) -> HTTPResponse:
    """The opened answer to a request for all bytes from `have`: 200 or 206; seconds without a byte end it.

    TransientError: it may go well another time; FailureError: it will not.
    """
    headers = {"User-Agent": "seqjepa-data", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if origin.validator:
            headers["If-Range"] = origin.validator
    try:
        request = urllib.request.Request(origin.url, headers=headers)
        response = urllib.request.build_opener(_Redirects).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            return answer(Origin(origin.url, "", 0), 0, timeout)  # the file is shorter by now: all of it
        if error.code in PASSING:
            raise TransientError(f"the server says {error.code} {error.reason}", _retry_after(error)) from error
        raise FailureError(
            f"{origin.url}: the server says {error.code} {error.reason}; its page may say where it is now, and --from "
            "takes another address"
        ) from error
    except (OSError, HTTPException) as error:
        if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError | InvalidURL):
            raise FailureError(f"{origin.url}: {reason(error)}; nothing was fetched") from error
        raise TransientError(reason(error)) from error
    if response.headers.get("Content-Encoding", "identity") != "identity" or response.status not in (200, 206):
        response.close()
        raise FailureError(f"{origin.url}: the server answers in a form that was not asked for ({response.status})")
    return response


def reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    said = getattr(cause, "strerror", None) or " ".join(str(cause).split())
    return said or type(cause).__name__


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    value = error.headers.get("Retry-After", "") if error.headers else ""
    if value.isdigit():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def validator_of(response: HTTPResponse) -> str:
    """A strong ETag, else the time of the last change; weak ETags are of no use in If-Range."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def total_of(response: HTTPResponse, known: int = 0) -> int:
    """Bytes of the whole file, however much of it is sent. FailureError: neither the server says, nor is it known."""
    if response.status == 206:
        match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = match[3] if match else ""
    else:
        total = response.headers.get("Content-Length", "")
    if total in ("", "*") and known:
        return known
    if not total.isdigit() or not 0 < int(total) <= LARGEST:
        raise FailureError(f"{response.url}: the server does not say how large the file is; get it elsewhere (--from)")
    return int(total)
