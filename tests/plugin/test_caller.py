# SPDX-License-Identifier: Apache-2.0
"""Who is calling: every shape of identity the gateway is known to give, and what a client may try."""

import functools
import sys
import types
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from cpex.framework import GlobalContext, UserContext
from cpex_tool_firewall import caller as caller_module
from cpex_tool_firewall.caller import SESSION_HINTS_PER_USER, CallerResolver, Recent, token_id
from cpex_tool_firewall.config import load
from cpex_tool_firewall.state import digest

KEY = bytes(range(32))


@dataclass(frozen=True)
class MadeCaller:
    """Stands for the engine's Caller."""

    tenant: str
    user: str
    agent: str = ""
    group: str = ""
    session: str = ""
    token: str = ""


class Factory:
    """Stands for Engine.caller, and counts."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, tenant: str, user: str, **rest: str) -> MadeCaller:
        self.made += 1
        return MadeCaller(tenant, user, **rest)


headers: ContextVar[Mapping[str, Any]] = ContextVar("request_headers", default={})  # noqa: B039


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A gateway as far as the resolver sees one."""
    context = types.ModuleType("mcpgateway.transports.context")
    context.request_headers_var = headers  # type: ignore[attr-defined]
    for name in ("mcpgateway", "mcpgateway.transports"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "mcpgateway.transports.context", context)
    monkeypatch.delitem(sys.modules, "mcpgateway.config", raising=False)
    token = headers.set({})
    yield
    headers.reset(token)


def resolver(**settings: Any) -> tuple[CallerResolver, Factory]:
    factory = Factory()
    return CallerResolver(factory, functools.partial(digest, KEY), load(settings)), factory  # type: ignore[arg-type]


def context(user: Any = "alice@example.com", tenant: str | None = "team", **rest: Any) -> GlobalContext:
    return GlobalContext(request_id="fixed", user=user, tenant_id=tenant, **rest)


def bearer(**claims: Any) -> str:
    return "Bearer " + jwt.encode(claims, "any key, for nobody here checks it", algorithm="HS256")


def test_a_user_is_the_same_as_dict_and_as_text() -> None:
    resolve, factory = resolver()
    one = resolve.resolve(context({"email": "alice@example.com", "is_admin": False, "full_name": "Alice"}))
    two = resolve.resolve(context("alice@example.com"))
    assert one is two
    assert one.user == "alice@example.com"
    assert factory.made == 1


@pytest.mark.parametrize("user", [None, {}, {"email": None}, {"email": 7}, {"email": ["a"]}, ""])
def test_without_a_name_a_caller_is_anonymous(user: Any) -> None:
    resolve, _ = resolver()
    assert resolve.resolve(context(user)).user == "anonymous"


def test_a_lost_user_is_found_in_the_user_context() -> None:
    resolve, _ = resolver()
    known = UserContext(user_id="bob-id", email="bob@example.com")
    assert resolve.resolve(context(None, user_context=known)).user == "bob@example.com"
    assert resolve.resolve(context(None, user_context=UserContext(user_id="bob-id"))).user == "bob-id"
    assert resolve.resolve(context("alice@example.com", user_context=known)).user == "alice@example.com"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("alice@example.com", "Alice@example.com"),
        ("kim@example.com", "\u212aim@example.com"),  # Kelvin sign: lower() folds it to k
        ("straSSe@example.com", "stra\u00dfe@example.com"),
        ("jos\u00e9@example.com", "jose\u0301@example.com"),
        ("bob@example.com", "\uff42ob@example.com"),
        ("bob@example.com", "bob@example.com "),
        ("bob", "bob\0"),
        ("x\ud800", "x\ud801"),
        ("x\ud800", "x\ufffd"),
    ],
)
def test_a_name_is_taken_byte_for_byte(one: str, other: str) -> None:
    resolve, _ = resolver()
    assert resolve.resolve(context(one)).user == one
    assert resolve.resolve(context(other)).user == other
    assert resolve.resolve(context(one)).session != resolve.resolve(context(other)).session


def test_tenants_do_not_meet() -> None:
    resolve, _ = resolver()
    found = [resolve.resolve(context(tenant=tenant)) for tenant in ("a", "b", None)]
    assert [caller.tenant for caller in found] == ["a", "b", ""]
    assert len({caller.session for caller in found}) == 3


def test_a_cached_caller_is_the_same_object() -> None:
    resolve, factory = resolver()
    first = resolve.resolve(context())
    assert all(resolve.resolve(context()) is first for _ in range(100))
    assert factory.made == 1


def test_the_peer_group_comes_from_the_settings() -> None:
    resolve, _ = resolver(peer_groups={"analysts": ["alice@example.com"]})
    assert resolve.resolve(context()).group == "analysts"
    assert resolve.resolve(context("bob@example.com")).group == ""


@pytest.mark.usefixtures("gateway")
def test_the_token_is_a_keyed_digest_of_its_jti() -> None:
    resolve, _ = resolver()
    headers.set({"authorization": bearer(sub="alice", jti="login-1")})
    one = resolve.resolve(context())
    headers.set({"authorization": bearer(sub="alice", jti="login-2")})
    two = resolve.resolve(context())
    headers.set({"authorization": bearer(sub="alice", jti="login-1", extra="renewed")})
    again = resolve.resolve(context())
    assert len(one.token) == 16
    assert "login" not in one.token
    assert one.token != two.token
    assert one.session != two.session
    assert (again.token, again.session) == (one.token, one.session)
    assert one.token != digest(bytes(32), repr(("token", "login-1")))


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer opaque",
        "Bearer a.b.c",
        "Basic YWxpY2U6c2VjcmV0",
        "Bearer \ud800.x.y",
        "Bearer " + "A" * 100_000,
        bearer(sub="alice"),
        bearer(jti=5),
        bearer(jti=None),
        b"Bearer bytes",
        7,
        ["Bearer x"],
    ],
)
def test_without_a_jti_there_is_no_token(authorization: Any) -> None:
    resolve, _ = resolver()
    bare = resolve.resolve(context())
    headers.set({"authorization": authorization})
    found = resolve.resolve(context())
    assert (found.token, found.session) == ("", bare.session)


def test_a_deep_or_odd_token_is_no_trouble() -> None:
    deep = "[" * 50_000 + "]" * 50_000
    payload = jwt.utils.base64url_encode(deep.encode()).decode()
    assert token_id(f"Bearer eyJhbGciOiJIUzI1NiJ9.{payload}.x") == ""
    payload = jwt.utils.base64url_encode(b'["jti"]').decode()
    assert token_id(f"Bearer eyJhbGciOiJIUzI1NiJ9.{payload}.x") == ""
    assert token_id(bearer(jti="j", exp=1, nbf=9e9, aud="someone", iss="other")) == "j"
    assert token_id(bearer(jti="j").replace("Bearer", "bearer")) == "j"


@pytest.mark.usefixtures("gateway")
def test_the_token_is_read_where_the_gateway_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = types.ModuleType("mcpgateway.config")
    config.settings = types.SimpleNamespace(auth_header_name="X-Gateway-Auth")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mcpgateway.config", config)
    resolve, _ = resolver()
    headers.set({"authorization": bearer(jti="for the upstream"), "x-gateway-auth": bearer(jti="ours")})
    both = resolve.resolve(context())
    headers.set({"authorization": bearer(jti="another"), "x-gateway-auth": bearer(jti="ours")})
    assert resolve.resolve(context()).session == both.session
    headers.set({"authorization": bearer(jti="another")})
    assert resolve.resolve(context()).token == ""


@pytest.mark.usefixtures("gateway")
def test_an_agent_header_counts_only_where_it_is_trusted() -> None:
    headers.set({"x-agent-id": "planner"})
    resolve, _ = resolver()
    assert resolve.resolve(context()).agent == ""
    resolve, _ = resolver(trusted_agent_header="X-Agent-Id")
    assert resolve.resolve(context()).agent == "planner"
    headers.set({"x-agent-id": "a" * 100_000})
    assert len(resolve.resolve(context()).agent) == 256


@pytest.mark.usefixtures("gateway")
def test_a_session_header_subdivides_and_nothing_more() -> None:
    resolve, _ = resolver()
    bare = resolve.resolve(context())
    headers.set({"mcp-session-id": "s1"})
    one = resolve.resolve(context())
    other = resolve.resolve(context("bob@example.com"))
    assert len({bare.session, one.session, other.session}) == 3
    assert (one.user, one.tenant) == (bare.user, bare.tenant)
    resolve, _ = resolver(session_header=None)
    assert resolve.resolve(context()).session == bare.session


@pytest.mark.usefixtures("gateway")
def test_made_up_sessions_end_in_one_and_push_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, factory = resolver()
    bob = resolve.resolve(context("bob@example.com"))
    sessions = set()
    for number in range(100_000):
        headers.set({"mcp-session-id": f"made-up-{number}"})
        sessions.add(resolve.resolve(context()).session)
    assert len(sessions) == SESSION_HINTS_PER_USER + 1
    assert factory.made == SESSION_HINTS_PER_USER + 2
    headers.set({"mcp-session-id": "made-up-3"})  # those that counted go on counting
    assert resolve.resolve(context()).session in sessions
    headers.set({})
    assert resolve.resolve(context("bob@example.com")) is bob
    # A day later there is room for new ones: a client that starts a session a day is not punished for ever.
    later = caller_module.time.monotonic() + caller_module.SESSION_HINT_SECONDS + 1
    monkeypatch.setattr(caller_module.time, "monotonic", lambda: later)
    headers.set({"mcp-session-id": "tomorrow"})
    assert resolve.resolve(context()).session not in sessions


@pytest.mark.usefixtures("gateway")
def test_a_request_id_and_upstream_headers_say_nothing() -> None:
    resolve, _ = resolver()
    alice = resolve.resolve(context("alice@example.com"))
    bob = resolve.resolve(context("bob@example.com"))  # the same request_id
    assert alice is not bob


def test_without_a_gateway_there_are_no_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mcpgateway"]:
        monkeypatch.delitem(sys.modules, name)
    resolve, _ = resolver(trusted_agent_header="x-agent")
    found = resolve.resolve(context())
    assert (found.agent, found.token) == ("", "")
    assert "mcpgateway" not in sys.modules  # it is never imported for its own sake


@pytest.mark.usefixtures("gateway")
def test_a_gateway_that_moved_its_headers_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcpgateway.transports.context", types.ModuleType("empty"))
    resolve, _ = resolver()
    assert resolve.resolve(context()).token == ""
    monkeypatch.setitem(sys.modules, "mcpgateway.transports.context", None)  # import raises
    resolve, _ = resolver()
    assert resolve.resolve(context()).token == ""


def test_a_cache_keeps_what_is_used_and_stays_small() -> None:
    recent: Recent[int, str] = Recent(100)
    for number in range(1_000):
        recent.keep(number, str(number))
        assert recent.find(0) == "0"  # used all the time
        assert len(recent) <= 200
    assert recent.find(1) is None
    assert recent.find(999) == "999"
