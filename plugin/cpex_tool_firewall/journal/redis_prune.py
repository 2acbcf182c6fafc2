# SPDX-License-Identifier: Apache-2.0
"""Pruning of the Redis journal, one sealed range at a time; see redis_seals.py for what a seal says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .chain import ChainKey, TamperedError
from .interface import Kind
from .redis_connection import Server
from .redis_scripts import RESEAL, Keys, cursor_at, id_of
from .redis_seals import (
    Level,
    Seal,
    check_kept,
    check_whole,
    first_seal,
    joined,
    split,
)
from .redis_streams import Stored, stream_between


class Pruner:
    """Prunes the journal of one generation. Raises TamperedError before it would sign something altered."""

    def __init__(self, server: Server, keys: Keys, key: ChainKey, generation: str) -> None:
        self._server = server
        self._keys = keys
        self._key = key
        self._generation = generation

    def prune(self, calls_before: float, findings_before: float, upto: int) -> int:
        """One slice that removes something; how many records, 0 when nothing is due. See Journal.prune."""
        calls = min(cursor_at(calls_before) - 1, upto)
        findings = min(cursor_at(findings_before) - 1, upto)
        while True:
            removed = self._calls(calls)
            if removed is None:
                removed = self._findings(findings)
            if removed is None:
                return 0
            if removed:
                return removed

    def _calls(self, upto: int) -> int | None:
        """Ordinary packs of the oldest whole range, as far as they are due. None when nothing is."""
        before = self._seal_at("pruned")
        seal = self._after(before)
        if seal is None or seal.start >= upto:
            return None
        entries = stream_between(self._server, self._keys.packs, seal.start, seal.upto)
        kept = stream_between(self._server, self._keys.kept, seal.start, seal.upto)
        if len(entries) < seal.packs and not check_kept(self._key, before, seal, kept):
            # Somebody trimmed the stream. That is on record for verify(); what follows can still be pruned.
            if seal.upto > upto:
                return None
            gone = seal.packs - len(entries)
            made = [replace(seal, level=Level.KEPT, digests="", missing=gone).sealed(self._key)]
            records = sum(entry.records for entry in entries if entry.kind == Kind.ORDINARY)
        else:
            if problem := check_whole(self._key, before, seal, entries):
                raise TamperedError(problem)
            due = sum(entry.cursor <= upto for entry in entries)
            if not due:
                return None
            made = split(self._key, before, seal, entries, due)
            records = made[0].ordinary
        first = made[0]
        left = [entry for entry in kept if entry.cursor <= first.upto]
        larger = joined(self._key, before, first, left)
        away = [seal]
        if larger is not None:
            away, made = [before, seal], [larger, *made[1:]]
        self._apply(away, made, field="pruned", value=first.upto, number=first.number, trim=True)
        return records

    def _findings(self, upto: int) -> int | None:
        """Findings of the oldest range that has only its ordinary packs pruned, when all of it is due."""
        before = self._seal_at("pruned_findings")
        seal = self._after(before)
        if seal is None or seal.level == Level.WHOLE or seal.upto > upto:
            return None
        kept = stream_between(self._server, self._keys.kept, seal.start, seal.upto)
        if seal.missing:
            kept_problem = check_kept(self._key, before, replace(seal, missing=0).sealed(self._key), kept)
        else:
            kept_problem = check_kept(self._key, before, seal, kept)
        if kept_problem:
            raise TamperedError(kept_problem)
        gone = [entry for entry in kept if entry.kind == Kind.FINDING]
        left = [entry for entry in kept if entry.kind == Kind.CONTROL]
        made = replace(seal, level=Level.CONTROL).sealed(self._key)
        larger = joined(self._key, before, made, left)
        away = [seal] if larger is None else [before, seal]
        self._apply(away, [larger or made], field="pruned_findings", value=made.upto, gone=gone)
        return sum(entry.records for entry in gone)

    def _apply(
        self,
        away: Sequence[Seal],
        put: Sequence[Seal],
        *,
        field: str,
        value: int,
        number: int | None = None,
        trim: bool = False,
        gone: Sequence[Stored] = (),
    ) -> None:
        keys = self._keys
        arguments: list[str | int] = [self._generation, len(away), len(put), len(gone)]
        arguments += [id_of(value + 1) if trim else "", field, value, "" if number is None else number]
        arguments += [seal.encoded() for seal in away]
        for seal in put:
            arguments += [seal.upto, seal.encoded()]
        arguments += [id_of(entry.cursor) for entry in gone]
        # 0: another worker was faster; the next slice sees what it did.
        self._server.script(RESEAL, [keys.meta, keys.seals, keys.packs, keys.kept], arguments)

    def _seal_at(self, field: str) -> Seal:
        """The last seal of what is pruned so far."""
        (value,) = self._server.run(("HGET", self._keys.meta, field))
        if not value:
            return first_seal(self._key)
        (found,) = self._server.run(("ZRANGEBYSCORE", self._keys.seals, value, value))
        if not found:
            raise TamperedError(f"the signed note about the cursors up to {int(value)} was removed")
        return self._genuine(found[0])

    def _after(self, before: Seal) -> Seal | None:
        (found,) = self._server.run(
            ("ZRANGEBYSCORE", self._keys.seals, f"({before.upto}", "+inf", "LIMIT", 0, 1)
        )
        return self._genuine(found[0]) if found else None

    def _genuine(self, text: bytes) -> Seal:
        seal = Seal.parsed(text)
        if not seal.genuine(self._key):
            raise TamperedError(f"the signed note about cursors {seal.start + 1} to {seal.upto} was altered")
        return seal
