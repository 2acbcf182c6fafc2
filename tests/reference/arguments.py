# SPDX-License-Identifier: Apache-2.0
"""What of a call's arguments can be new: its leaves, each as one or two values of a kind."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MOST_LEAVES = 16
MOST_ELEMENTS = 8  # of a list
LONGEST_VALUE = 40  # bytes; longer text is prose, always new
LONGEST_HOST = 200  # bytes of the text it is in, without a scheme

LONGEST_PATH = 200  # bytes
PREFIX = 3  # names of a path

# Whose something is, or where: known to a user wherever it was seen, not only at the same argument.
ADDRESS, DOMAIN, HOST, ACCOUNT, PLACE = "E", "D", "H", "A", "P"
IDENTITIES = (ADDRESS, DOMAIN, HOST, ACCOUNT, PLACE)
VALUE, MAGNITUDE = "V", "M"
LISTED = (ADDRESS, HOST, ACCOUNT)  # for people to judge, and held back when first seen at high risk

BEYOND = 1025  # a power of two above every double

# Bytes, not characters: everything beyond ASCII counts as a letter.
_NAME = rb"[A-Za-z0-9_\x80-\xff-]+"
_DOTTED = re.compile(_NAME + rb"(?:\." + _NAME + rb")+")
_EMAIL = re.compile(rb"[A-Za-z0-9_\x80-\xff.+-]+@(" + _DOTTED.pattern + rb")")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#:@]*)[^ \t\n\v\f\r@]*")
_BARE = re.compile(rb"([^/?#: \t\n\v\f\r]*)(:[0-9]+)?(?:[/?#][^ \t\n\v\f\r]*)?")
_ENDING = re.compile(rb"[A-Za-z\x80-\xff-]{2,}")  # the last name of a host
_IPV4 = re.compile(rb"[0-9]+(?:\.[0-9]+){3}")
_FILE = re.compile(rb"[A-Za-z0-9_\x80-\xff./ -]*\.[A-Za-z]{2,4}")
_ACCOUNT = re.compile(rb"[A-Za-z]{0,4}[0-9]{8,}")
_PATH = re.compile(rb"[^ \t\n\v\f\r]*[/\\][^ \t\n\v\f\r]*")
_WWW = b"www."


class Leaf(NamedTuple):
    path: str  # ".a.b[]"
    value: Any


class Fact(NamedTuple):
    """One thing a leaf says."""

    path: str
    kind: str
    value: bytes | bool | tuple[int, int]

    @property
    def identity(self) -> bool:
        return self.kind in IDENTITIES


def leaves(arguments: Mapping[str, Any]) -> list[Leaf]:
    """The first MOST_LEAVES, in the order of the text."""
    found: list[Leaf] = []
    for leaf in _walk("", arguments):
        if len(found) == MOST_LEAVES:
            break
        found.append(leaf)
    return found


def _walk(path: str, value: Any) -> Iterator[Leaf]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(f"{path}.{key}", inner)
    elif isinstance(value, list):
        for inner in value[:MOST_ELEMENTS]:
            yield from _walk(f"{path}[]", inner)
    else:
        yield Leaf(path, value)


def facts(leaf: Leaf) -> list[Fact]:
    """Of an e-mail address the address and its domain, of a path where it leads and the whole, of other text
    at most one; of a number its sign and magnitude."""
    if isinstance(leaf.value, bool):
        return [Fact(leaf.path, VALUE, leaf.value)]
    if isinstance(leaf.value, (int, float)):
        return [Fact(leaf.path, MAGNITUDE, magnitude(leaf.value))]
    if not isinstance(leaf.value, str):
        return []
    text = leaf.value.encode()
    email = _EMAIL.fullmatch(text)
    if email:
        return [Fact(leaf.path, ADDRESS, text.lower()), Fact(leaf.path, DOMAIN, email[1].lower())]
    host = host_of(text)
    if host:
        return [Fact(leaf.path, HOST, host)]
    if _ACCOUNT.fullmatch(text):
        return [Fact(leaf.path, ACCOUNT, text)]
    found = []
    if len(text) <= LONGEST_PATH and _PATH.fullmatch(text):
        *names, _ = re.split(rb"[/\\]", text)
        found.append(Fact(leaf.path, PLACE, b"/".join(names[: PREFIX + (not names[0])])))
    if len(text) <= LONGEST_VALUE:
        found.append(Fact(leaf.path, VALUE, text))
    return found


def host_of(text: bytes) -> bytes | None:
    """Of an address in the net: after a scheme whatever stands there, alone only what looks like a host. What
    RFC 3986 forbids, user names in URLs and addresses in brackets are not invented, so not looked at."""
    if url := _SCHEME.fullmatch(text):
        return _without_www(url[1].lower()) or None
    bare = _BARE.fullmatch(text)
    if not bare or len(text) >= LONGEST_HOST or not _DOTTED.fullmatch(bare[1]):
        return None
    host = bare[1].lower()
    if not _ENDING.fullmatch(host.rpartition(b".")[2]) and not _IPV4.fullmatch(host):
        return None
    if not bare[2] and _FILE.fullmatch(text) and not host.startswith(_WWW):
        return None
    return _without_www(host)


def _without_www(host: bytes) -> bytes:
    rest = host.removeprefix(_WWW)
    return rest if _DOTTED.fullmatch(rest) else host


def magnitude(number: float) -> tuple[int, int]:
    """Sign, and the power of two above it."""
    sign = (number > 0) - (number < 0)
    try:
        number = float(number)
    except OverflowError:
        return (sign, BEYOND)
    return (sign, math.frexp(number)[1] if math.isfinite(number) else BEYOND)
