# SPDX-License-Identifier: Apache-2.0
"""Some room on the journal's disk, kept for what must not be lost when the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_NAME: Final = "reserve"
_BYTES: Final = 4 * 1024 * 1024
_AGAIN_BYTES: Final = 64 * 1024 * 1024  # so much must be free before it is made anew


class Reserve:
    """A file of 4 MiB in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / _NAME

    def keep(self) -> None:
        """Makes it when it is not there and the disk has room again."""
        if self._path.exists():
            return
        space = os.statvfs(self._folder)
        if space.f_bavail * space.f_frsize < _AGAIN_BYTES:
            return
        with suppress(OSError):  # it filled up at this very moment; the next time then
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _BYTES)
            finally:
                os.close(descriptor)

    def drop(self) -> bool:
        """Gives its room to others. False when it was not there."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True
