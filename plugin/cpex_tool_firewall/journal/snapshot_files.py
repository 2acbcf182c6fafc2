# SPDX-License-Identifier: Apache-2.0
"""Snapshots as files in the state folder: snapshot-GENERATION-CURSOR.bin, each whole or not there."""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path
from typing import Final

from ..folders import sync_folder
from .interface import SNAPSHOTS_KEPT, JournalError, SnapshotInfo

_NAME: Final = re.compile(r"snapshot-([0-9a-f]+)-(\d+)\.bin\Z")
_LITTER: Final = re.compile(r"\.snapshot-.*\.tmp\Z")
_LITTER_SECONDS: Final = 3600.0


class SnapshotFiles:
    """The snapshots of one generation of a journal in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, generation: str, cursor: int, body: bytes) -> None:
        """Writes one and deletes what is not needed any more. Raises JournalError."""
        target = self._folder / f"snapshot-{generation}-{cursor}.bin"
        draft = self._folder / f".snapshot-{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with open(descriptor, "wb") as file:
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                draft.rename(target)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            sync_folder(self._folder)
        except OSError as error:
            raise JournalError(f"{target}: cannot be saved ({error.strerror})") from error
        self._clean(generation)

    def all(self, generation: str) -> list[SnapshotInfo]:
        """Those of this generation, newest first."""
        found = []
        for path in self._folder.iterdir():
            match = _NAME.match(path.name)
            if match is None or match[1] != generation:
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process has just deleted it
            found.append(SnapshotInfo(int(match[2]), status.st_mtime, status.st_size))
        return sorted(found, reverse=True)

    def load(self, generation: str, cursor: int) -> bytes:
        """The body of one. Raises JournalError."""
        path = self._folder / f"snapshot-{generation}-{cursor}.bin"
        try:
            return path.read_bytes()
        except OSError as error:
            raise JournalError(f"{path}: cannot be read ({error.strerror})") from error

    def _clean(self, generation: str) -> None:
        keep = {info.cursor for info in self.all(generation)[:SNAPSHOTS_KEPT]}
        now = time.time()
        for path in self._folder.iterdir():
            match = _NAME.match(path.name)
            old = match is not None and (match[1] != generation or int(match[2]) not in keep)
            try:
                if old or (_LITTER.match(path.name) and now - path.stat().st_mtime > _LITTER_SECONDS):
                    path.unlink()
            except FileNotFoundError:
                continue
