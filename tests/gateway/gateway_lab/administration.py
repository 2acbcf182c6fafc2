# SPDX-License-Identifier: Apache-2.0
"""Sets a fresh gateway up over REST: users, a team, the upstream's tools, a virtual server, tokens."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from gateway_lab.options import ADMIN_EMAIL, PASSWORD
from gateway_lab.process import LabError

MEMBERS: Final = ("alice", "bob", "dave", "erin", "frank")  # of the team
OUTSIDER: Final = "carol"  # has an account, but is in no team


def email(user: str) -> str:
    return f"{user}@example.com"


@dataclass(frozen=True)
class Tokens:
    """api: made by POST /tokens for the team. login: the session token of a log-in."""

    api: str
    login: str


@dataclass(frozen=True)
class Installation:
    """What a set-up gateway knows. tools: the upstream's name of a tool -> the name the gateway lists."""

    team: str
    gateway: str  # id of the upstream, as the plugin sees it
    server: str  # id of the virtual server
    tools: dict[str, str]
    tokens: dict[str, Tokens] = field(default_factory=dict)


class Administrator:
    """The platform administrator's session with the gateway. close() it."""

    def __init__(self, base_url: str) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=60.0, trust_env=False)
        self.token = self.log_in(ADMIN_EMAIL)

    def close(self) -> None:
        self._http.close()

    def log_in(self, address: str) -> str:
        """A session token."""
        body = self.request("POST", "/auth/login", token="", json={"email": address, "password": PASSWORD})
        return str(body["access_token"])

    def request(self, method: str, path: str, *, token: str | None = None, **more: Any) -> Any:
        """The decoded body; LabError when the gateway says no. token: None = the administrator's."""
        bearer = self.token if token is None else token
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        response = self._http.request(method, path, headers=headers, **more)
        if response.status_code not in (200, 201):
            raise LabError(f"{method} {path}: HTTP {response.status_code} {response.text[:800]}")
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return response.json() if is_json else response.text

    def install(self, upstream_url: str) -> Installation:
        """Makes users, the team with its members, the upstream with its tools, the virtual server, tokens."""
        for user in (*MEMBERS, OUTSIDER):
            self._add_user(user)
        team = self.request(
            "POST", "/teams/", json={"name": "lab", "description": "lab", "visibility": "private"}
        )["id"]
        self._join(team, MEMBERS)
        gateway = self.request(
            "POST",
            "/gateways",
            json={
                "name": "lab",
                "url": upstream_url,
                "transport": "STREAMABLEHTTP",
                "team_id": team,
                "visibility": "team",
            },
        )["id"]
        tools = self._tools_of(gateway)
        server = self.request(
            "POST",
            "/servers",
            json={
                "server": {
                    "name": "lab_virtual",
                    "description": "lab",
                    "associated_tools": [tool["id"] for tool in tools],
                    "associated_resources": [],
                    "associated_prompts": [],
                },
                "team_id": team,
                "visibility": "team",
            },
        )["id"]
        names = {tool["originalName"]: tool["name"] for tool in tools}
        tokens = {
            user: self.tokens_of(user, team if user in MEMBERS else None) for user in (*MEMBERS, OUTSIDER)
        }
        return Installation(team, gateway, server, names, tokens)

    def tokens_of(self, user: str, team: str | None, *, name: str = "lab") -> Tokens:
        """A new pair of tokens of a user; an API token of the team, or of no team."""
        login = self.log_in(email(user))
        wanted: dict[str, Any] = {"name": f"{user}-{name}", "expires_in_days": 1}
        if team is not None:
            wanted["team_id"] = team
        return Tokens(
            api=self.request("POST", "/tokens", token=login, json=wanted)["access_token"], login=login
        )

    def _add_user(self, user: str) -> None:
        self.request(
            "POST",
            "/auth/email/admin/users",
            json={
                "email": email(user),
                "password": PASSWORD,
                "full_name": user.title(),
                "is_admin": False,
                "password_change_required": False,
            },
        )

    def _join(self, team: str, users: Sequence[str]) -> None:
        listed = self.request("GET", "/rbac/roles")
        roles = listed if isinstance(listed, list) else listed["roles"]
        developer = next(role for role in roles if role["name"] == "developer")
        for user in users:
            self.request("POST", f"/teams/{team}/members", json={"email": email(user), "role": "member"})
            grant = {"role_id": developer["id"], "scope": developer["scope"], "scope_id": team}
            self.request("POST", f"/rbac/users/{email(user)}/roles", json=grant)

    def _tools_of(self, gateway: str, *, seconds: float = 20.0) -> list[dict[str, Any]]:
        """The upstream's tools; the gateway may still be fetching them."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            listed = self.request("GET", "/tools")
            tools = listed if isinstance(listed, list) else listed["tools"]
            found = [tool for tool in tools if tool.get("gatewayId") == gateway]
            if found:
                return found
            time.sleep(0.2)
        raise LabError(f"the gateway lists no tools of the upstream after {seconds:g} s")
