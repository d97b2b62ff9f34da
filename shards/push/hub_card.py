"""What cards on the hub have in common: a YAML head, a licence, and a last line that tells whether one was edited.

The line holds the sha256 of all above it. A README.md without it, or with another sum, is somebody's own: it stays.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

from shards.errors import UsageError
from shards.machine.files import sha256_of_bytes
from shards.stores.hub import HubAddress, HubFolder, Listing, open_hub

CARD = "README.md"
LARGEST_CARD = 4 << 20
_SEAL = re.compile(rb"<!-- card made by seqjepa, sha256 ([0-9a-f]{64}) -->\n\Z")
_LICENCES = """
apache-2.0 mit openrail bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear isc zlib unlicense mpl-2.0 epl-2.0 eupl-1.2
agpl-3.0 gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 artistic-2.0 bsl-1.0 ecl-2.0 etalab-2.0 afl-3.0 c-uda gfdl
cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 odc-by odbl pddl unknown other
"""
LICENCES = tuple(_LICENCES.split())
"""That the hub takes (https://huggingface.co/docs/hub/repositories-licenses), without those of single models."""


def licence_of(text: str) -> str:
    """The identifier as the hub writes it; "" stays. UsageError: the hub does not know it."""
    name = text.strip().lower()
    if name and name not in LICENCES:
        near = difflib.get_close_matches(name, LICENCES, 3) or ["cc-by-4.0", "mit", "apache-2.0"]
        raise UsageError(
            f"--licence {text}: the hub knows {', '.join(near)} …; write other for what is not in its list "
            "(https://huggingface.co/docs/hub/repositories-licenses)"
        )
    return name


def quoted(text: str) -> str:
    """A YAML scalar, whatever is in it."""
    return json.dumps(text, ensure_ascii=False)


def sealed(card: str) -> bytes:
    """The card with its last line."""
    body = card.rstrip("\n").encode() + b"\n\n"
    return body + f"<!-- card made by seqjepa, sha256 {sha256_of_bytes(body)} -->\n".encode()


def is_ours(card: bytes) -> bool:
    """Whether a card is as `sealed` made it."""
    found = _SEAL.search(card)
    return bool(found) and sha256_of_bytes(card[: found.start()]) == found[1].decode()


def card_that_stays(address: HubAddress, listing: Listing) -> bytes | None:
    """The README.md on the hub where somebody wrote or edited it; None: there is none, or it is ours to replace."""
    if CARD not in listing.files:
        return None
    if listing.files[CARD].size > LARGEST_CARD:
        raise UsageError(f"{address}: its README.md has more than {LARGEST_CARD >> 20} MiB; shorten it on the hub")
    folder: HubFolder = open_hub(address.at(listing.commit), [CARD])
    card = Path(folder.root / CARD).read_bytes()
    return None if is_ours(card) else card
