# SPDX-License-Identifier: Apache-2.0
"""What makes a journal tamper-evident: digests over its records, and signed notes about what is gone.

Every record has a digest that depends on the one before it, on its place, on when it was stored and of what
kind it is (native/journal/chain.h), under a key made from the installation's key. So a record that was
altered, removed, inserted or moved breaks the chain there.

Pruning and rescues leave holes on purpose. A *checkpoint* covers the range of cursors (start, upto] of such
a hole: how many records are gone, the digest with which the chain goes on behind it, and a fold of what is
still there, so that nothing else can be taken out of a pruned range. It is sealed with the same key.

Whoever has the key can forge all of this. What was cut off at the end shows only by an anchor kept elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from .._native import Chain
from .interface import Anchor

DIGEST_BYTES: Final = 16


class TamperedError(Exception):
    """A record is not what it was when it was stored. The text says where."""


class ChainKey:
    """Makes and checks digests for one installation's key."""

    START: Final = bytes(DIGEST_BYTES)
    """What comes before the first record."""

    def __init__(self, key: bytes) -> None:
        self._chain = Chain(key)
        self._key = _hash(key, b"journal")
        self.fingerprint = _hash(key, b"fingerprint").hex()

    def link(self, previous: bytes, cursor: int, at: float, kind: int, body: bytes) -> bytes:
        """The digests of a pack's records, 16 bytes each, after `previous`. ValueError for a damaged pack."""
        begun = _hash(self._key, previous + struct.pack("<dB", at, kind))
        return self._chain.link(begun, cursor, body)

    @staticmethod
    def tail(previous: bytes, digests: bytes) -> bytes:
        """`previous` for the next pack."""
        return digests[-DIGEST_BYTES:] or previous

    def fold(self, before: bytes, pack: tuple[int, float, int, int, bytes, bytes]) -> bytes:
        """Adds one pack (cursor, at, kind, records, body, digests) to the fold of what a range holds."""
        cursor, at, kind, records, body, digests = pack
        head = struct.pack("<QdBQQ", cursor, at, kind, records, len(body))
        return _hash(self._key, before + head + body + digests)

    def seal(self, *parts: object) -> bytes:
        """A signature over values that repr() tells apart."""
        return _hash(self._key, repr(parts).encode())


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is known of the cursors (start, upto], of which not everything is there any more."""

    start: int
    upto: int
    why: str  # pruned | rescued
    removed: int  # records
    kept: int  # packs
    tail: bytes  # digest the chain goes on with
    fold: bytes  # of the packs kept
    oldest_call: float | None  # `at` of the oldest kept pack of its kind, s
    oldest_finding: float | None
    seal: bytes = b""

    def sealed(self, key: ChainKey) -> Checkpoint:
        """The same, signed."""
        return replace(self, seal=self._seal(key))

    def genuine(self, key: ChainKey) -> bool:
        """Whether it was sealed with this key and not changed since."""
        return hmac.compare_digest(self.seal, self._seal(key))

    def _seal(self, key: ChainKey) -> bytes:
        return key.seal(
            *(self.start, self.upto, self.why, self.removed, self.kept, self.tail, self.fold),
            *(self.oldest_call, self.oldest_finding),
        )


class Anchors:
    """What somebody outside kept of the end of the chain, at some cursors."""

    def __init__(self, anchors: Sequence[Anchor]) -> None:
        self._digests: dict[int, set[str]] = {}
        for anchor in anchors:
            self._digests.setdefault(anchor.cursor, set()).add(anchor.digest)
        self.cursors = sorted(self._digests)

    def contradict(self, cursor: int, digest: str) -> str:
        """What is wrong when the chain has this digest (hex) at a cursor, "" when nothing is."""
        if self._digests.get(cursor, {digest}) == {digest}:
            return ""
        return (
            f"the chain up to cursor {cursor} is not the one the anchor knows: the journal was made anew, or "
            "an older copy was restored and continued"
        )

    def beyond(self, last: int) -> str:
        """What is wrong when the journal ends at a cursor, "" when nothing is."""
        if not self.cursors or self.cursors[-1] <= last:
            return ""
        return (
            f"everything after cursor {last} is missing: an anchor knows cursor {self.cursors[-1]}; the end "
            "was cut off, or an older copy was restored"
        )


def _hash(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=DIGEST_BYTES).digest()
