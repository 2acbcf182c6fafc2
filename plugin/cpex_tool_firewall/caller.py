# SPDX-License-Identifier: Apache-2.0
"""Who is calling: from what the gateway hands a hook to the engine's Caller.

Sources, first match wins, and how far each can be trusted:

- tenant: global_context.tenant_id, else "". Set by the gateway.
- user: global_context.user (a dict's "email", or a str), else user_context.email or .user_id, else
  "anonymous". Set by the gateway, and taken byte for byte: no folding of case or of look-alikes.
- token: jti of the bearer token in the request headers, else "". The gateway has verified that token; only a
  keyed digest of the jti is kept.
- session: tenant + user + token, subdivided by the setting session_header. That header is a client's claim:
  16 values per user and day count, the rest share one session.
- agent: the header in the setting trusted_agent_header, else "". As good as what sets it, so off by default.
- group: the setting peer_groups, else the trusted agent, else "", which is the whole tenant.

Never used: request_id (a client can choose it) and payload.headers (those go to the upstream server).
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import jwt

from .config import Settings

if TYPE_CHECKING:
    from ._native import Caller

ANONYMOUS: Final = "anonymous"
SESSION_HINTS_PER_USER: Final = 16
SESSION_HINT_SECONDS: Final = 86_400.0

# Entries per generation (a cache holds two): with tokens of 1 KB each, 25 MB when all of it is full.
_CALLERS: Final = 8_192
_TOKENS: Final = 4_096
_HINTED_USERS: Final = 8_192

_LONGEST_AUTHORIZATION: Final = 16_384  # characters; a longer header is not looked into
_LONGEST_HEADER_VALUE: Final = 256  # characters of an agent or session header that count

_NO_HEADERS: ContextVar[Mapping[str, Any]] = ContextVar("no_request_headers", default=MappingProxyType({}))

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A bounded cache in two generations: what was used since the last change of generation survives the
    next.

    It does the work of a least-recently-used cache, but a hit in `young` is one plain dict lookup, which the
    call path does by itself: ``recent.young[key]``, and `find` on KeyError.
    """

    __slots__ = ("_old", "limit", "young")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def find(self, key: K) -> V | None:
        """The value of `key`, kept for another generation; None if it is not here."""
        value = self.young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.keep(key, value)
        return value

    def keep(self, key: K, value: V) -> None:
        """Stores a value. When the young generation is full, the old one is dropped and the young one becomes
        old.
        """
        if len(self.young) >= self.limit:
            self._old = dict(self.young)
            self.young.clear()  # cleared, not replaced: the call path holds this dict
        self.young[key] = value

    def __len__(self) -> int:
        return len(self.young) + len(self._old)


def gateway_request_headers() -> ContextVar[Mapping[str, Any]]:
    """The gateway's ContextVar with the headers of the request being served; an always empty one without a
    gateway.

    The gateway is looked for only where it already runs: importing it takes seconds and reads its settings.
    """
    if "mcpgateway" not in sys.modules:
        return _NO_HEADERS
    try:
        module = importlib.import_module("mcpgateway.transports.context")
    except ImportError:
        return _NO_HEADERS
    variable = getattr(module, "request_headers_var", None)
    return variable if isinstance(variable, ContextVar) else _NO_HEADERS


def gateway_authorization_header() -> str:
    """Name (lower case) of the header the gateway reads its own tokens from."""
    settings = getattr(sys.modules.get("mcpgateway.config"), "settings", None)
    name = getattr(settings, "auth_header_name", None)
    return name.strip().lower() if isinstance(name, str) and name.strip() else "authorization"


def token_id(authorization: str) -> str:
    """The `jti` claim of a bearer token, "" if there is none to be had.

    The signature is not checked here: the gateway refused the request before any hook if it was wrong.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or len(authorization) > _LONGEST_AUTHORIZATION:
        return ""
    try:
        claims = jwt.decode(token.strip(), options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return ""  # an opaque token is nothing unusual, and says no more than no token
    jti = claims.get("jti")
    return jti if isinstance(jti, str) else ""


class CallerResolver:
    """Finds the Caller of a hook's context. One per process: its caches belong to one engine and one key.

    `make` is Engine.caller; `digest` turns text into a keyed one-way digest. Nothing here raises for anything
    a client sends.
    """

    resolve: Callable[[Any], Caller]
    """The Caller of a GlobalContext. One dict lookup when this caller was seen lately."""

    def __init__(self, make: Callable[..., Caller], digest: Callable[[str], str], settings: Settings) -> None:
        self._make = make
        self._digest = digest
        self._group_of = settings.group_of()
        self._session_header = settings.session_header
        self._agent_header = settings.trusted_agent_header
        self._callers: Recent[tuple[Any, ...], Caller] = Recent(_CALLERS)
        self._tokens: Recent[str, str] = Recent(_TOKENS)
        self._hints: Recent[tuple[str, str], dict[str, float]] = Recent(_HINTED_USERS)
        self._headers: ContextVar[Mapping[str, Any]] | None = None
        self._authorization = ""
        self.look_for_gateway()

    def look_for_gateway(self) -> None:
        """Binds to the gateway's request headers if they are there by now. Cheap: done for each instance."""
        headers, authorization = gateway_request_headers(), gateway_authorization_header()
        if (headers, authorization) != (self._headers, self._authorization):
            self._headers, self._authorization = headers, authorization
            self.resolve = self._resolver(headers.get, authorization)

    def _resolver(
        self, current_headers: Callable[[], Mapping[str, Any]], authorization_name: str
    ) -> Callable[[Any], Caller]:
        # A closure, not a method: on the call path its variables cost half of what attributes would.
        known = self._callers.young
        look_up = self._look_up
        session_name = self._session_header or ""
        agent_name = self._agent_header or ""

        def resolve(context: Any) -> Caller:
            user = context.user
            if user.__class__ is dict:
                user = user.get("email")
            headers = current_headers()
            if not headers:
                try:
                    return known[context.tenant_id, user]
                except (KeyError, TypeError):  # TypeError: something in it cannot be a key
                    return look_up(context, user, None, None, None)
            authorization = headers.get(authorization_name)
            hint = headers.get(session_name)
            agent = headers.get(agent_name)
            try:
                return known[context.tenant_id, user, authorization, hint, agent]
            except (KeyError, TypeError):
                return look_up(context, user, authorization, hint, agent)

        return resolve

    def _look_up(
        self, context: Any, user: object, authorization: object, hint: object, agent: object
    ) -> Caller:
        tenant = _text(context.tenant_id)
        name = _text(user)
        if not name and isinstance(context.user, Mapping):  # a dict of another make
            name = _text(context.user.get("email"))
        if not name and context.user_context is not None:
            name = _text(getattr(context.user_context, "email", None))
            name = name or _text(getattr(context.user_context, "user_id", None))
        name = name or ANONYMOUS
        bearer = _text(authorization)
        # A hint joins the key only if it counts: a client that makes up a new one for every call then finds
        # the one shared entry, and cannot push other callers out of the cache.
        session = self._counting_hint(tenant, name, _text(hint)[:_LONGEST_HEADER_VALUE])
        agent_name = _text(agent)[:_LONGEST_HEADER_VALUE]
        key: tuple[Any, ...] = (tenant or None, name)
        if bearer or session or agent_name:
            key = (*key, bearer or None, session or None, agent_name or None)
        caller = self._callers.find(key)
        if caller is None:
            jti = self._jti(bearer) if bearer else ""
            caller = self._make(
                tenant,
                name,
                agent=agent_name,
                group=self._group_of.get(name, agent_name),
                session=self._digest(repr(("session", tenant, name, jti, session))),
                token=self._digest(repr(("token", jti))) if jti else "",
            )
            self._callers.keep(key, caller)
        return caller

    def _jti(self, authorization: str) -> str:
        jti = self._tokens.find(authorization)
        if jti is None:
            jti = token_id(authorization)
            self._tokens.keep(authorization, jti)
        return jti

    def _counting_hint(self, tenant: str, user: str, hint: str) -> str:
        """`hint` if it is among the first 16 of this user within a day, else ""."""
        if not hint:
            return ""
        hints = self._hints.find((tenant, user))
        if hints is None:
            hints = {}
            self._hints.keep((tenant, user), hints)
        if hint in hints:
            return hint
        now = time.monotonic()
        if len(hints) >= SESSION_HINTS_PER_USER:
            for old in [known for known, first in list(hints.items()) if now - first > SESSION_HINT_SECONDS]:
                del hints[old]
        if len(hints) >= SESSION_HINTS_PER_USER:
            return ""
        hints[hint] = now
        return hint


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
