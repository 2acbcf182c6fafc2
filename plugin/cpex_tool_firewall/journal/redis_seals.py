# SPDX-License-Identifier: Apache-2.0
"""The chain of digests in the Redis journal: sealed in ranges, pruned by range, verified.

The elected worker links what was stored since the last time, and signs a *seal* over that range of cursors
(start, upto]: how many packs and records of each kind it holds, a digest for each record, the digest the
chain goes on with, and two folds: over its findings and control packs, and over its control packs alone. So
a range whose ordinary packs were pruned is judged by the first fold, and one whose findings were pruned too
by the second. A pruned range is signed again, joined with the one before it, without digests.

Whatever is stored is open to change until it is sealed, about a second later.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from typing import Any, Final

from .._native import record_class, unpack
from .chain import DIGEST_BYTES, Anchors, ChainKey, TamperedError
from .interface import Anchor, Kind, Verified
from .redis_connection import as_json
from .redis_scripts import time_of
from .redis_streams import Stored

SEAL_PACKS: Final = 64
"""Packs in one seal at most: so much is read and checked at once."""

_TRIES: Final = 5  # of verifying while somebody prunes
_JOINED_PACKS: Final = 512  # kept packs of a pruned range at most: so much is read when it is pruned again
_JOINED_SECONDS: Final = 86_400.0  # findings of a pruned range leave together: at most so much later


class Level(IntEnum):
    """What is still there of a sealed range."""

    WHOLE = 0
    KEPT = 1  # its ordinary packs are pruned
    CONTROL = 2  # its findings too


@dataclass(frozen=True, slots=True)
class Seal:
    """What is known of the cursors (start, upto]. Digests are hex, `digests` base64."""

    start: int
    upto: int
    number: int  # of its last pack
    packs: int  # it held
    ordinary: int  # records
    findings: int
    control: int
    kept: int  # packs of findings and control
    kept_control: int  # packs
    tail: str
    fold: str
    fold_control: str
    level: int = Level.WHOLE
    missing: int = 0  # packs that were gone before they were due
    digests: str = ""
    seal: str = field(default="")

    @classmethod
    def parsed(cls, text: bytes) -> Seal:
        """From what encoded() gave. TamperedError when it cannot be that."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise TamperedError("a signed note about a range of the chain cannot be read any more") from error

    def encoded(self) -> str:
        """As it is stored."""
        return as_json(asdict(self))

    def sealed(self, key: ChainKey) -> Seal:
        """The same, signed."""
        return replace(self, seal=self._seal(key))

    def genuine(self, key: ChainKey) -> bool:
        """Whether it was signed with this key and not changed since."""
        return hmac.compare_digest(str(self.seal).encode(), self._seal(key).encode())

    def _seal(self, key: ChainKey) -> str:
        values = asdict(self)
        values.pop("seal")
        return key.seal("redis", as_json(sorted(values.items()))).hex()

    @property
    def removed(self) -> int:
        """Records that are pruned."""
        return (self.ordinary if self.level >= Level.KEPT else 0) + (
            self.findings if self.level >= Level.CONTROL else 0
        )


def first_seal(key: ChainKey) -> Seal:
    """What comes before every range."""
    start = key.START.hex()
    return Seal(0, 0, 0, 0, 0, 0, 0, 0, 0, start, start, start, level=Level.CONTROL)


def make_seal(key: ChainKey, before: Seal, entries: Sequence[Stored]) -> Seal:
    """Seals `entries`, which follow the range of `before`. ValueError for a damaged pack."""
    tail = bytes.fromhex(before.tail)
    links = []
    for entry in entries:
        made = key.link(tail, entry.cursor, entry.at, entry.kind, entry.body)
        tail = key.tail(tail, made)
        links.append(made)
    records = {kind: sum(entry.records for entry in entries if entry.kind == kind) for kind in Kind}
    kept = [entry for entry in entries if entry.kind != Kind.ORDINARY]
    control = [entry for entry in entries if entry.kind == Kind.CONTROL]
    return Seal(
        start=before.upto,
        upto=entries[-1].cursor,
        number=entries[-1].number,
        packs=len(entries),
        ordinary=records[Kind.ORDINARY],
        findings=records[Kind.FINDING],
        control=records[Kind.CONTROL],
        kept=len(kept),
        kept_control=len(control),
        tail=tail.hex(),
        fold=fold(key, key.START, kept).hex(),
        fold_control=fold(key, key.START, control).hex(),
        digests=base64.b64encode(b"".join(links)).decode(),
    ).sealed(key)


def fold(key: ChainKey, begun: bytes, entries: Sequence[Stored]) -> bytes:
    """A digest over packs in their order, after `begun`."""
    for entry in entries:
        begun = key.fold(begun, (entry.cursor, entry.at, entry.kind, entry.records, entry.body, b""))
    return begun


def check_whole(key: ChainKey, before: Seal, seal: Seal, entries: Sequence[Stored]) -> str:
    """What is wrong with a range that is all there, "" when nothing is."""
    if problem := _check_seal(key, before, seal):
        return problem
    stored = base64.b64decode(seal.digests)
    tail, done, number = bytes.fromhex(before.tail), 0, before.number
    for entry in entries:
        number += 1
        if entry.number != number:
            return (
                f"packs {number} to {entry.number - 1}, before cursor {entry.cursor}, were removed or moved"
            )
        try:
            made = key.link(tail, entry.cursor, entry.at, entry.kind, entry.body)
            records = unpack(entry.body)
        except ValueError:
            return f"the records at cursor {entry.cursor} were altered: they cannot even be told apart"
        expected = stored[done : done + len(made)]
        if made != expected:
            return _first_difference(entry, made, expected)
        if problem := _wrong_head(entry, records):
            return problem
        tail, done = key.tail(tail, made), done + len(made)
    if len(entries) != seal.packs or done != len(stored):
        return f"what was stored after cursor {entries[-1].cursor if entries else seal.start} was removed"
    return ""


def check_kept(key: ChainKey, before: Seal, seal: Seal, kept: Sequence[Stored]) -> str:
    """What is wrong with what must be left of a range, "" when nothing is. kept: its findings and control."""
    if problem := _check_seal(key, before, seal):
        return problem
    left = [entry for entry in kept if seal.level < Level.CONTROL or entry.kind == Kind.CONTROL]
    expected = seal.fold_control if seal.level >= Level.CONTROL else seal.fold
    if fold(key, key.START, left).hex() != expected or len(left) != len(kept):
        return (
            f"a finding or a control record kept of cursors {seal.start + 1} to {seal.upto} was altered, "
            "removed or added"
        )
    return ""


def _check_seal(key: ChainKey, before: Seal, seal: Seal) -> str:
    if not seal.genuine(key):
        return f"the signed note about cursors {seal.start + 1} to {seal.upto} was altered"
    if seal.start != before.upto:
        return f"the signed note about cursors {before.upto + 1} to {seal.start} was removed"
    if seal.missing:
        return (
            f"{seal.missing} packs of cursors {seal.start + 1} to {seal.upto} were removed before they "
            "were due"
        )
    if seal.number - seal.packs != before.number:
        return f"packs {before.number + 1} to {seal.number - seal.packs} were removed before they were sealed"
    return ""


def _first_difference(entry: Stored, made: bytes, expected: bytes) -> str:
    for start in range(0, len(made), DIGEST_BYTES):
        if made[start : start + DIGEST_BYTES] != expected[start : start + DIGEST_BYTES]:
            return (
                f"record {start // DIGEST_BYTES + 1} of {entry.records} at cursor {entry.cursor} is not what "
                "was stored there, or what came before it was altered, removed, added or moved"
            )
    return f"the digests at cursor {entry.cursor} were altered"


def _wrong_head(entry: Stored, records: Sequence[bytes]) -> str:
    if len(records) != entry.records:
        return (
            f"the records at cursor {entry.cursor} were altered: {entry.records} stored, {len(records)} there"
        )
    try:
        kinds = {record_class(record) for record in records}
    except ValueError:
        return ""  # of a newer release; its digest is right
    return "" if kinds <= {entry.kind} else f"the kind of the records at cursor {entry.cursor} was altered"


def split(key: ChainKey, before: Seal, seal: Seal, entries: Sequence[Stored], due: int) -> list[Seal]:
    """A whole range as two: its first `due` packs pruned of ordinary ones, and the rest as it was."""
    first = replace(make_seal(key, before, entries[:due]), level=Level.KEPT, digests="")
    rest = [make_seal(key, first, entries[due:])] if due < len(entries) else []
    if rest and rest[0].tail != seal.tail:
        raise TamperedError(f"the chain up to cursor {seal.upto} is not what was sealed")
    return [first.sealed(key), *rest]


def joined(key: ChainKey, one: Seal, other: Seal, kept: Sequence[Stored]) -> Seal | None:
    """Two neighbours of one level as one seal, or None when that would be too large.

    kept: what is left of `other`. Of a seal without findings only the control fold matters.
    """
    if one.upto == 0 or one.level != other.level or one.missing != other.missing:
        return None
    last_level = other.level >= Level.CONTROL
    held = one.kept_control + other.kept_control if last_level else one.kept + other.kept
    if held > _JOINED_PACKS:
        return None
    if not last_level and time_of(other.upto) - time_of(one.start) > _JOINED_SECONDS:
        return None
    control = [entry for entry in kept if entry.kind == Kind.CONTROL]
    return replace(
        other,
        start=one.start,
        packs=one.packs + other.packs,
        ordinary=one.ordinary + other.ordinary,
        findings=one.findings + other.findings,
        control=one.control + other.control,
        kept=one.kept + other.kept,
        kept_control=one.kept_control + other.kept_control,
        fold=fold(key, bytes.fromhex(one.fold), kept).hex(),
        fold_control=fold(key, bytes.fromhex(one.fold_control), control).hex(),
    ).sealed(key)


class Verification:
    """One walk over all seals, from the first to the last.

    Reads through the functions: seals(after, limit) as stored, packs(after, upto) and kept(after, upto);
    unchanged(seal): whether a seal is still stored. While somebody prunes, seals change under the walk: then
    it begins again.
    """

    def __init__(
        self,
        key: ChainKey,
        anchors: Sequence[Anchor],
        *,
        seals: Callable[[int, int], list[bytes]],
        packs: Callable[[int, int], list[Stored]],
        kept: Callable[[int, int], list[Stored]],
        unchanged: Callable[[bytes], bool],
        last: int,
    ) -> None:
        self._unchanged = unchanged
        self._key = key
        self._anchors = Anchors(anchors)
        self._read_seals, self._read_packs, self._read_kept = seals, packs, kept
        self._last = last
        self._before = first_seal(key)
        self._records = 0
        self._pruned = 0
        self._first = 0

    def run(self, progress: Callable[[int, int], None] | None) -> Verified:
        """Everything."""
        for tries in range(_TRIES):
            found, final = self._walk(progress, last_try=tries == _TRIES - 1)
            if final:
                return found
            self._before = first_seal(self._key)
            self._records = self._pruned = self._first = 0
        raise AssertionError("the last try is final")

    def _walk(self, progress: Callable[[int, int], None] | None, *, last_try: bool) -> tuple[Verified, bool]:
        for seal, text, problem in self._steps():
            if problem:
                return self._verified(problem), last_try or self._unchanged(text)
            self._pruned += seal.removed
            self._records += seal.ordinary + seal.findings + seal.control - seal.removed
            self._before = seal
            if progress is not None:
                progress(seal.upto, max(self._last, seal.upto))
        return self._verified(self._anchors.beyond(self._before.upto)), True

    def _steps(self) -> Iterator[tuple[Seal, bytes, str]]:
        while texts := self._read_seals(self._before.upto, SEAL_PACKS):
            for text in texts:
                try:
                    seal = Seal.parsed(text)
                except TamperedError as error:
                    yield self._before, text, str(error)
                    return
                yield seal, text, self._check(seal)

    def _check(self, seal: Seal) -> str:
        kept = self._read_kept(self._before.upto, seal.upto)
        if seal.level > Level.WHOLE:
            entries = kept
            problem = check_kept(self._key, self._before, seal, kept)
        else:
            entries = self._read_packs(self._before.upto, seal.upto)
            problem = check_whole(self._key, self._before, seal, entries) or check_kept(
                self._key, self._before, seal, kept
            )
        self._first = self._first or (entries[0].cursor if entries else 0)
        return problem or self._anchors.contradict(seal.upto, seal.tail)

    def _verified(self, problem: str) -> Verified:
        end: Any = self._before
        return Verified(
            self._records, self._pruned, self._first, end.upto, end.tail if end.upto else "", problem
        )
