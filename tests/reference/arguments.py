# SPDX-License-Identifier: Apache-2.0
"""What of a call's arguments can be new: its leaves, each as one or two values of a kind."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MOST_LEAVES = 16
MOST_ELEMENTS = 8  # of a list
LONGEST_VALUE = 40  # bytes; longer text is prose, always new
LONGEST_HOST = 200  # bytes of the text it is in

# What can be somebody else's: known to a user wherever it was seen, not only at the same argument.
ADDRESS, DOMAIN, HOST, ACCOUNT = "E", "D", "H", "A"
IDENTITIES = (ADDRESS, DOMAIN, HOST, ACCOUNT)
VALUE = "V"

# Bytes, not characters: everything beyond ASCII counts as a letter.
_WORD = rb"[A-Za-z0-9_\x80-\xff]"
_WORD_OR_DASH = rb"[A-Za-z0-9_\x80-\xff-]"
_DOTTED = rb"(" + _WORD_OR_DASH + rb"+(?:\." + _WORD_OR_DASH + rb"+)+)"
_EMAIL = re.compile(rb"[A-Za-z0-9_\x80-\xff.+-]+@" + _DOTTED)
_URL = re.compile(rb"(?:https?://)?(?:www\.)?" + _DOTTED + rb"(?:/[^ \t\n\v\f\r]*)?")
_FILE = re.compile(rb"[A-Za-z0-9_\x80-\xff./ -]*\.[A-Za-z]{2,4}|(?:/[A-Za-z0-9_\x80-\xff.-]+)+/?")
_ACCOUNT = re.compile(rb"[A-Za-z]{0,4}[0-9]{8,}")


class Leaf(NamedTuple):
    path: str  # ".a.b[]"
    value: Any


class Fact(NamedTuple):
    """One thing a leaf says."""

    path: str
    kind: str
    value: bytes | bool

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
    """Of an e-mail address the address and its domain, of other text at most one; of numbers nothing."""
    if isinstance(leaf.value, bool):
        return [Fact(leaf.path, VALUE, leaf.value)]
    if not isinstance(leaf.value, str):
        return []
    text = leaf.value.encode()
    email = _EMAIL.fullmatch(text)
    if email:
        return [Fact(leaf.path, ADDRESS, text.lower()), Fact(leaf.path, DOMAIN, email[1].lower())]
    url = _URL.fullmatch(text)
    if url and len(text) < LONGEST_HOST and not _FILE.fullmatch(text):
        return [Fact(leaf.path, HOST, url[1].lower())]
    if _ACCOUNT.fullmatch(text):
        return [Fact(leaf.path, ACCOUNT, text)]
    if len(text) <= LONGEST_VALUE:
        return [Fact(leaf.path, VALUE, text)]
    return []
