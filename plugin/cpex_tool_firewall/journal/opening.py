# SPDX-License-Identifier: Apache-2.0
"""Which journal the settings ask for: the one line of registration of a backend.

The command line knows the state folder, but no settings before it has read a journal. So a worker whose
journal is not in that folder leaves a note there that says where it is; see read_journal_choice().
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any, Final

from ..config import ConfigError, Settings, load
from ..state import State
from .interface import Journal, JournalError
from .sqlite import BUSY_SECONDS, SqliteJournal

CHOICE_NAME: Final = "journal.json"
_CHOICE: Final = ("journal",)
_REDIS: Final = "redis_"
_READER_SECONDS: Final = 2.0  # for each answer of a server, where nobody but a person waits


def open_journal(
    settings: Settings, state: State, *, create: bool = True, busy_seconds: float | None = None
) -> Journal:
    """The journal of this installation; made when there is none, unless create is False.

    busy_seconds: how long a call may wait for other processes, or for a server; None: as short as a worker
    needs it. With create False, which is for readers, what the workers of this folder use goes before
    `settings`. Raises JournalError.
    """
    if create:
        _note_choice(settings, state.folder)
    else:
        settings = read_journal_choice(state.folder) or settings
    if settings.journal == "redis":
        return _open_redis(settings, state, create=create, busy_seconds=busy_seconds)
    patience = BUSY_SECONDS if busy_seconds is None else busy_seconds
    return SqliteJournal(state.folder, state.key, create=create, busy_seconds=patience)


def read_journal_choice(folder: Path) -> Settings | None:
    """Settings that name the journal which the workers of this folder use; None when none has noted it.

    Raises JournalError when the note cannot be read.
    """
    path = folder / CHOICE_NAME
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return load(noted)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ConfigError) as error:
        raise JournalError(
            f"{path}: it should say where the journal is, and cannot be read ({error}); the gateway writes "
            "it again when it starts"
        ) from error


def _open_redis(settings: Settings, state: State, *, create: bool, busy_seconds: float | None) -> Journal:
    from .redis import RedisJournal
    from .redis_connection import COMMAND_SECONDS, RedisOptions

    patience = COMMAND_SECONDS if create else _READER_SECONDS
    return RedisJournal(
        RedisOptions.of(settings),
        state.folder,
        state.key,
        create=create,
        spooling=create,
        seconds=patience if busy_seconds is None else max(busy_seconds, patience),
    )


def _note_choice(settings: Settings, folder: Path) -> None:
    path = folder / CHOICE_NAME
    if settings.journal == "sqlite" and not path.exists():
        return  # as everybody assumes who finds no note
    noted: dict[str, Any] = {
        name: value
        for name, value in settings.model_dump(mode="json", exclude_defaults=True).items()
        if name in _CHOICE or name.startswith(_REDIS)
    }
    text = json.dumps(noted, indent=2) + "\n"
    draft = folder / f".{CHOICE_NAME}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.rename(path)
    except OSError as error:
        raise JournalError(f"{path}: cannot be written ({error.strerror})") from error
