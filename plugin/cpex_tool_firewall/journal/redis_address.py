# SPDX-License-Identifier: Apache-2.0
"""What addresses and key prefixes the settings for Redis may hold."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

PASSWORD_VARIABLE: Final = "TOOL_FIREWALL_REDIS_PASSWORD"

_PREFIX: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
_URL_SCHEMES: Final = ("redis", "rediss", "unix")


def check_url(url: str) -> str:
    """The URL as it is, or ValueError. Its text never shows the URL: a password may be in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("this is not an address") from error
    if parts.scheme not in _URL_SCHEMES:
        raise ValueError("an address of another kind; write it as in redis://host:6379/0")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "it names a user, a password or options, and the address is shown in heartbeats and logs; use "
            f"redis_username and redis_password_file (or {PASSWORD_VARIABLE})"
        )
    if parts.scheme == "unix":
        if parts.netloc or not parts.path:
            raise ValueError("the path of the socket is missing; write it as in unix:///run/redis/redis.sock")
    elif not parts.hostname or port == 0 or not re.fullmatch(r"/?\d{0,4}", parts.path):
        raise ValueError(
            "no host, or more than a database number behind it; write it as in redis://host:6379/0"
        )
    return url


def check_prefix(prefix: str) -> str:
    """The prefix as it is, or ValueError."""
    if not _PREFIX.match(prefix):
        raise ValueError("a prefix has 1 to 64 of the characters a-z A-Z 0-9 . _ : -")
    return prefix
