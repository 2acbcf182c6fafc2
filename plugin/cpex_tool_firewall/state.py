# SPDX-License-Identifier: Apache-2.0
"""The state folder: where it is, who may read it, and the key of this installation.

The folder holds the journal and the key, and belongs to the user the gateway runs as: mode 0700, files
0600. The key seeds the engine's tables and makes the digests that stand for tokens and sessions; with
another key, old digests mean nothing.
"""

import hashlib
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from .folders import sync_folder

STATE_VARIABLE = "TOOL_FIREWALL_STATE"
KEY_VARIABLE = "TOOL_FIREWALL_KEY_FILE"
KEY_BYTES = 32

_NAME = "cpex-tool-firewall"
_KEY_NAME = "key"
_JOURNAL_NAME = "journal.db"
_DIGEST_BYTES = 8
_PERSON = b"tool-firewall"  # keeps these digests apart from other uses of the same key


class StateError(Exception):
    """The state folder or the key cannot be used. The text names the path, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class State:
    """An opened state folder."""

    folder: Path
    key: bytes = field(repr=False)


def find_folder(setting: str | None = None) -> Path:
    """Where the state is: the setting, else TOOL_FIREWALL_STATE, else the user's default. Opens nothing."""
    for source, value in (("state", setting), (STATE_VARIABLE, os.environ.get(STATE_VARIABLE))):
        if value:
            path = Path(value).expanduser()
            if not path.is_absolute():
                raise StateError(
                    f"{source}: {value!r} is not an absolute path; write it as in /var/lib/{_NAME}"
                )
            return path
    if os.geteuid() == 0:
        return Path("/var/lib") / _NAME
    home = os.environ.get("XDG_STATE_HOME")
    # The XDG rule: a relative path is to be ignored.
    base = Path(home) if home and Path(home).is_absolute() else Path.home() / ".local" / "state"
    return base / _NAME


def open_state(setting: str | None = None, *, create: bool = True) -> State:
    """Opens the state folder and reads its key; makes both when create is True.

    Several workers may start at once. create=False is for readers: a folder or key that is missing is then
    an error. Raises StateError.
    """
    folder = find_folder(setting)
    if create:
        _make_folder(folder)
    check_folder(folder)
    return State(folder, read_key(folder, create=create))


def check_folder(folder: Path) -> None:
    """Raises StateError unless `folder` is a folder that this user, and nobody else, may read and write."""
    try:
        found = folder.stat()
    except FileNotFoundError as error:
        raise StateError(
            f"{folder}: there is no state folder; it is made when the gateway starts with the plugin. "
            f"If the gateway uses another one, name it with --state or {STATE_VARIABLE}"
        ) from error
    except OSError as error:
        raise _unusable(folder, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{folder}: this is not a folder; remove it or choose another state folder")
    if found.st_mode & 0o077:
        raise StateError(
            f"{folder}: others may read or change it (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run: chmod 700 {folder} (for a mounted volume, use a folder inside it)"
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise StateError(
            f"{folder}: not readable and writable for {_user()}; it belongs to uid {found.st_uid}: "
            f"run this as that user or as root, or give it away with: chown -R {os.geteuid()} {folder}"
        )


def key_path(folder: Path) -> Path:
    """Where the key is: TOOL_FIREWALL_KEY_FILE, else `key` in the folder."""
    given = os.environ.get(KEY_VARIABLE)
    return Path(given) if given else folder / _KEY_NAME


def read_key(folder: Path, *, create: bool) -> bytes:
    """The 32-byte key of this installation; made once, beside the journal, if create. Raises StateError."""
    path = key_path(folder)
    ours = path == folder / _KEY_NAME
    had_journal = (
        folder / _JOURNAL_NAME
    ).exists()  # asked before the key: a starting worker makes the key first
    if create and ours and not path.exists():
        if had_journal:
            raise StateError(
                f"{path}: the key is missing but there is a journal, whose digests need it; restore the key "
                "from a backup, or move the journal away to start anew"
            )
        _make_key(path)
    try:
        found = path.stat()
        key = path.read_bytes()
    except FileNotFoundError as error:
        where = "it is made when the gateway starts with the plugin" if ours else f"{KEY_VARIABLE} names it"
        raise StateError(f"{path}: there is no key; {where}") from error
    except OSError as error:
        raise _unusable(path, error) from error
    # A mounted secret is often readable for a group, on purpose; for everybody, never.
    if found.st_mode & (0o077 if ours else 0o007):
        raise StateError(
            f"{path}: others may read the key (mode {stat.S_IMODE(found.st_mode):04o}); run: chmod 600 {path}"
        )
    if len(key) != KEY_BYTES:
        raise StateError(
            f"{path}: the key has {len(key)} bytes, it must have {KEY_BYTES}; restore it from a backup, "
            f"or make one with: head -c {KEY_BYTES} /dev/urandom"
        )
    return key


def digest(key: bytes, text: str) -> str:
    """A one-way stand-in for any `text`: 16 hex characters, the same for the same key and text."""
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES, key=key, person=_PERSON).hexdigest()


def _make_folder(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as error:
        raise StateError(
            f"{error.filename}: there is a file where a folder should be; move it away"
        ) from error
    except OSError as error:
        raise _unusable(folder, error) from error


def _make_key(path: Path) -> None:
    # Written beside and linked into place: whoever sees the name sees all 32 bytes, and of several starting
    # workers exactly one key stays.
    draft = path.with_name(f".{_KEY_NAME}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(KEY_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another worker was first; its key is as good
        finally:
            draft.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> StateError:
    return StateError(
        f"{path}: {error.strerror or error}; give {_user()} the right to write there, "
        f"or choose another folder with the setting 'state' or {STATE_VARIABLE}"
    )


def _user() -> str:
    return f"uid {os.geteuid()}"
