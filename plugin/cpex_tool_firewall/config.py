# SPDX-License-Identifier: Apache-2.0
"""The settings of the plugin: names, types, limits, defaults and what each one means.

This model is the only place where a setting is described. The table in the README is printed from it:
``python -m cpex_tool_firewall.config`` shows it, ``python -m cpex_tool_firewall.config README.md`` puts it
into a file between the two ``settings`` markers. A wrong setting is refused with its path and the accepted
values.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from jsonpointer import JsonPointer, JsonPointerException
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from .journal.redis_address import check_prefix, check_url

TABLE_BEGIN: Final = "<!-- settings:begin -->"
TABLE_END: Final = "<!-- settings:end -->"

# What a binding for one tool may set for itself. Everything else describes the state that all tools of a
# process share, so it comes from the first configuration the process loads.
TOOL_OVERRIDES: Final = frozenset({"mode", "threshold", "uninspectable_exempt_tools"})

MODE_ALIASES: Final = {"detection": "learning", "audit": "warn", "enforce": "block"}
"""Other names of the modes, as other products have them; ours are what is stored and shown."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_SHOWN_CHARACTERS = 80


class ConfigError(ValueError):
    """The configuration is wrong. `problems`: one line per wrong setting, ``path: what; accepted: ...``."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("wrong configuration of the tool firewall:\n  " + "\n  ".join(problems))


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"{_shown(name)} is not a known time zone") from error
    return name


def _header(name: str) -> str:
    if not _HEADER_NAME.match(name):
        raise ValueError(f"{_shown(name)} is not a header name")
    return name.lower()


def _pointer(text: str) -> str:
    try:
        JsonPointer(text)
    except JsonPointerException as error:
        raise ValueError(f"{_shown(text)} is not a JSON pointer") from error
    return text


RedisUrl = Annotated[str, AfterValidator(check_url)]
RedisPrefix = Annotated[str, AfterValidator(check_prefix)]
ZoneName = Annotated[str, AfterValidator(_zone)]
HeaderName = Annotated[str, AfterValidator(_header)]
Mode = Annotated[
    Literal["learning", "warn", "shadow", "block"],
    BeforeValidator(lambda name: MODE_ALIASES.get(name, name) if isinstance(name, str) else name),
]
Threshold = Annotated[float, Field(ge=0.34, le=1.0)]
Cost = Annotated[float, Field(ge=0.0, le=1e9)]
CostPointer = Annotated[str, AfterValidator(_pointer)]


class Settings(BaseModel):
    """All settings, checked. Make one with :func:`load`; an instance never changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    mode: Mode = Field(
        default="learning",
        description="What happens to a call whose risk reaches the threshold. `learning`: it is recorded "
        "and allowed, quietly. `warn`: allowed, with a warning in the log. `shadow`: as `warn`, and the "
        "warning says that `block` would have stopped it. `block`: stopped. This is only how a new "
        "installation starts: `tool-firewall mode` changes it for all workers at once and survives "
        "restarts.",
    )
    threshold: float = Field(
        default=0.5,
        ge=0.34,
        le=1.0,
        description="The risk from which a call is warned about or blocked. 0.5 is about 1 in 1,000 "
        "ordinary calls, 0.667 about 1 in 10,000.",
    )
    tenant_thresholds: dict[str, Threshold] = Field(
        default_factory=dict,
        description="Another threshold for a tenant (the gateway's team id). A threshold in a tool's own "
        "binding "
        "goes before it.",
    )
    tool_thresholds: dict[str, Threshold] = Field(
        default_factory=dict,
        description="Another threshold for a tool, as its server names it. Goes before the tenant's.",
    )
    user_thresholds: dict[str, Threshold] = Field(
        default_factory=dict,
        description="Another threshold for a user, written exactly as the gateway writes the user. Goes "
        "before "
        "the tool's.",
    )
    burst_threshold: int = Field(
        default=20,
        ge=2,
        le=1000,
        description="How many calls one user may make within the burst window. One more puts the risk at "
        "0.5 or above, unless the user is known for it.",
    )
    burst_window_seconds: float = Field(
        default=60, ge=1, le=3600, description="Length of the burst window, in seconds."
    )
    rate_spike_calls: int = Field(
        default=100,
        ge=1,
        le=10_000_000,
        description="How often a tool must be called in an hour, by everybody of a tenant together, before "
        "`rate_spike` looks at it. Until there is a week to compare with, this alone decides.",
    )
    burn_spike_cost: Cost = Field(
        default=1.0,
        description="What a tool must cost in an hour, for everybody of a tenant together, before "
        "`burn_spike` "
        "looks at it. Until there is a week to compare with, this alone decides.",
    )
    tool_costs: dict[str, Cost] = Field(
        default_factory=dict,
        description="What a call of a tool costs, by the tool's name on its server, in whatever unit you "
        "like. "
        "Without this and the next two the cost signals are off.",
    )
    cost_argument: CostPointer | None = Field(
        default=None,
        description="Where a call's arguments say what it costs, as a JSON pointer (RFC 6901): `/max_cost`. "
        "Goes before `tool_costs`.",
    )
    cost_result: CostPointer | None = Field(
        default=None,
        description="Where a result says what the call did cost, as a JSON pointer: `/_meta/usage/cost`, "
        "`/structuredContent/cost`. Goes before both.",
    )
    session_budget: Cost | None = Field(
        default=None,
        description="What one session may cost; beyond it the risk is at least 0.5. null: no limit.",
    )
    day_budget: Cost | None = Field(
        default=None,
        description="What one user may spend in a day of the user's time zone; beyond it the risk is at "
        "least "
        "0.5. null: no limit.",
    )
    learning_days: float = Field(
        default=0,
        ge=0,
        le=365,
        description="After so many days `learning` becomes `warn` by itself. 0: only when switched.",
    )
    new_for_hours: float = Field(
        default=48,
        ge=0,
        le=720,
        description="How long something first seen at high risk stays new, in hours, so that a warned call "
        "does not excuse the next one.",
    )
    half_life_days: float = Field(
        default=14, ge=1, le=365, description="After so many days an observation counts half."
    )
    session_idle_minutes: float = Field(
        default=30, ge=1, le=1440, description="A session ends after so many minutes without a call."
    )
    time_zone: ZoneName = Field(
        default="UTC", description="Time zone of the hours a user works, for everybody not named below."
    )
    tenant_time_zones: dict[str, ZoneName] = Field(
        default_factory=dict, description="Time zone per tenant (the gateway's team id)."
    )
    user_time_zones: dict[str, ZoneName] = Field(
        default_factory=dict,
        description="Time zone per user, written exactly as the gateway writes the user. Goes before the "
        "tenant's.",
    )
    peer_groups: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Users who are compared with each other: group name to list of users. A user may be in "
        "one group only; whoever is in none is compared with the whole tenant.",
    )
    learn_peer_groups: bool = Field(
        default=False,
        description="Users who are in no peer group and have no trusted agent are compared with those who "
        "use "
        "the same tools, as learned, instead of with the whole tenant.",
    )
    trusted_agent_header: HeaderName | None = Field(
        default=None,
        description="Request header that names the agent; users in no peer group are then compared with "
        "others of the same agent. Set it only when something in front of the gateway overwrites it: "
        "a client can write any header it likes.",
    )
    session_header: HeaderName | None = Field(
        default="mcp-session-id",
        description="Request header that tells the sessions of one user apart. It is only a hint: at most "
        "16 values per user count, the rest share one session. null: no hint.",
    )
    audit: Literal["best_effort", "strict"] = Field(
        default="best_effort",
        description="What happens in `block` mode while calls cannot be recorded for more than a second. "
        "`best_effort`: they go on, and their records wait in memory. `strict`: they are stopped. Decisions "
        "hold either way, and are then recorded on standard error.",
    )
    record_destinations: bool = Field(
        default=True,
        description="Whether records name the hosts that stand in the arguments. Everything else in them is "
        "kept "
        "as keyed digests only, and with `false` hosts are too.",
    )
    uninspectable_exempt_tools: list[str] = Field(
        default_factory=list,
        description="Tools whose arguments may be too large, too deep or of an unknown type to inspect, "
        "without being stopped in `block` mode for that.",
    )
    state: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of the journal and the key. null: `TOOL_FIREWALL_STATE`, else "
        "`/var/lib/cpex-tool-firewall` for root and `$XDG_STATE_HOME/cpex-tool-firewall` for others.",
    )
    journal: Literal["sqlite", "redis"] = Field(
        default="sqlite",
        description="Where the workers share what they record. `sqlite`: a file in the state folder, for the "
        "workers of one host. `redis`: Redis 7 or Valkey, for workers on several hosts, which must share the "
        "key too.",
    )
    redis_url: RedisUrl | None = Field(
        default=None,
        description="Where the server of `journal: redis` is. No user, password or options in it: it is "
        "shown in heartbeats and logs.",
    )
    redis_username: str | None = Field(
        default=None, min_length=1, description="User name for the server. null: its default user."
    )
    redis_password_file: str | None = Field(
        default=None,
        min_length=1,
        description="File with the password for the server, not readable by everybody. null: the environment "
        "variable `TOOL_FIREWALL_REDIS_PASSWORD`, else none.",
    )
    redis_prefix: RedisPrefix = Field(
        default="tool-firewall",
        description="Begins the names of all keys, in braces; installations that share a server need one "
        "each.",
    )
    redis_ca_file: str | None = Field(
        default=None,
        min_length=1,
        description="Certificates (PEM) that vouch for the server of a `rediss://` address. null: the "
        "system's.",
    )
    redis_cert_file: str | None = Field(
        default=None,
        min_length=1,
        description="Certificate (PEM) to show to the server, where it asks for one.",
    )
    redis_key_file: str | None = Field(
        default=None, min_length=1, description="Key (PEM) of `redis_cert_file`; null: in the same file."
    )
    redis_cluster: bool = Field(
        default=False,
        description="The server is a node of a Redis Cluster: follow our keys to the node that has them.",
    )
    keep_calls_days: float = Field(
        default=14,
        ge=0.01,
        le=3650,
        description="Records of ordinary calls are removed from the journal after so many days. What was "
        "learned from them stays in the snapshots and fades with `half_life_days`.",
    )
    keep_findings_days: float = Field(
        default=90,
        ge=0.01,
        le=3650,
        description="Records of calls that were listed, warned about or stopped are removed after so many "
        "days. Changes by an operator are kept for ever.",
    )
    snapshot_minutes: float = Field(
        default=15,
        ge=0,
        le=1440,
        description="How often one of the workers saves what was learned, so that a restart is quick and "
        "old records can be removed; sooner when there is much traffic. 0: never, and nothing is removed.",
    )
    anchor_seconds: float = Field(
        default=10,
        ge=0,
        le=86_400,
        description="How often the end of the journal's chain of digests is written to the log (level "
        "INFO), when it moved: with a log that is kept elsewhere, `tool-firewall verify --anchors` finds "
        "what was cut off. 0: never.",
    )
    max_users_per_tenant: int = Field(
        default=100_000,
        ge=10,
        le=10_000_000,
        description="How many users of one tenant are kept in memory.",
    )
    max_memory_mb: int = Field(
        default=256,
        ge=64,
        le=65_536,
        description="How much memory the firewall may add to one worker, in MiB, for all tenants together: "
        "about 100,000 users. Beyond it newcomers of the tenant that has most of them are forgotten first.",
    )

    @model_validator(mode="after")
    def _one_group_per_user(self) -> Settings:
        seen: dict[str, str] = {}
        for group, users in self.peer_groups.items():
            for user in users:
                other = seen.setdefault(user, group)
                if other != group:
                    raise ValueError(
                        f"peer_groups: {_shown(user)} is in {_shown(other)} and in {_shown(group)}; "
                        "accepted: each user in one group"
                    )
        return self

    @model_validator(mode="after")
    def _redis_has_address(self) -> Settings:
        if self.journal == "redis" and self.redis_url is None:
            raise ValueError(
                "redis_url: missing; accepted with journal: redis: redis://host:6379/0 or the like"
            )
        return self

    @property
    def has_costs(self) -> bool:
        """Whether anything says what calls cost; without it the cost signals are off."""
        return bool(self.tool_costs) or self.cost_argument is not None or self.cost_result is not None

    def group_of(self) -> dict[str, str]:
        """User to peer group, for looking up; users in no group are absent."""
        return {user: group for group, users in self.peer_groups.items() for user in users}

    def shared(self) -> dict[str, Any]:
        """The settings that must be the same in every plugin instance of a process."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in TOOL_OVERRIDES}


def load(mapping: Mapping[str, Any] | None) -> Settings:
    """Checks a plugin's ``config`` block. None is the empty block. Raises ConfigError naming every wrong
    setting.
    """
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, Mapping):
        raise ConfigError([f"config: {_shown(mapping)} is not a block of settings; accepted: setting: value"])
    problems = [_unknown(key) for key in mapping if key not in Settings.model_fields]
    known = {key: value for key, value in mapping.items() if key in Settings.model_fields}
    try:
        settings = Settings.model_validate(known)
    except ValidationError as error:
        raise ConfigError(problems + [_problem(detail) for detail in error.errors()]) from None
    if problems:
        raise ConfigError(problems)
    return settings


def accepted(field: FieldInfo) -> str:
    """What a setting takes, in words: ``learning | warn``, ``number, 0.34 to 1``, ``list of text``."""
    return _with_bounds(_type_words(field.annotation, field.metadata), field.metadata)


def _constraints(metadata: tuple[Any, ...]) -> list[Any]:
    """Of an annotation: what its Field()s say, and the rest."""
    return [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _with_bounds(words: str, metadata: Iterable[Any]) -> str:
    low = high = None
    for item in metadata:
        low = getattr(item, "ge", low)
        high = getattr(item, "le", high)
    if low is not None and high is not None:
        words += f", {low:g} to {high:g}" if high < 1_000_000 else f", {low:g} to {high:.0f}"
    return words


def settings_table() -> str:
    """The settings as a Markdown table, without the markers around it."""
    lines = ["| Setting | Takes | Default | Per tool | Meaning |", "|---|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        cells = [
            f"`{name}`",
            accepted(field).replace("|", "\\|"),
            f"`{_default_words(default)}`",
            "yes" if name in TOOL_OVERRIDES else "no",
            (field.description or "").replace("|", "\\|"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_settings_table(text: str) -> str:
    """`text` with the table between its markers made anew. Raises ValueError when a marker is missing."""
    before, begin, rest = text.partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    if not begin or not end:
        raise ValueError(f"no {TABLE_BEGIN} ... {TABLE_END} in the text")
    return f"{before}{begin}\n{settings_table()}\n{end}{after}"


def _shown(value: object) -> str:
    """`value` for an error text: short, on one line, printable."""
    text = (
        ascii(value)
        if isinstance(value, str | int | float | bool | type(None))
        else f"a {type(value).__name__}"
    )
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _unknown(key: object) -> str:
    names = list(Settings.model_fields)
    near = difflib.get_close_matches(str(key), names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    shown = key if isinstance(key, str) and key.isidentifier() else _shown(key)
    return f"{shown}: unknown setting{hint}; accepted: {', '.join(names)}"


def _problem(detail: Any) -> str:
    """One line for one pydantic error."""
    location = detail["loc"]
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not location:  # a check across settings; its text is complete
        return message
    path = ".".join(part if str(part).isprintable() else _shown(part) for part in map(str, location))
    field = Settings.model_fields[str(location[0])]
    if detail["type"] != "value_error":
        message = f"{_shown(detail['input'])} is not accepted ({message})"
    return f"{path}: {message}; accepted: {accepted(field)}"


def _type_words(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    if any(getattr(item, "func", None) is _zone for item in metadata):
        return "IANA time zone, such as Europe/Berlin"
    if any(getattr(item, "func", None) is _header for item in metadata):
        return "header name"
    if any(getattr(item, "func", None) is check_url for item in metadata):
        return "redis://host:6379/0, rediss://host:6379/0 or unix:///path"
    if any(getattr(item, "func", None) is _pointer for item in metadata):
        return "JSON pointer"
    if any(getattr(item, "func", None) is check_prefix for item in metadata):
        return "1 to 64 of a-z A-Z 0-9 . _ : -"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _with_bounds(_type_words(arguments[0], arguments[1:]), _constraints(arguments[1:]))
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type_words(argument) for argument in arguments)
    if origin is dict:
        return f"block of {_type_words(arguments[0])}: {_type_words(arguments[1])}"
    if origin is list:
        return f"list of {_type_words(arguments[0])}"
    return {str: "text", int: "whole number", float: "number", bool: "true | false", type(None): "null"}[
        annotation
    ]


def _default_words(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return str(value)


def main(arguments: list[str]) -> int:
    """Prints the table of settings, or renews it in a file. For maintainers."""
    options = argparse.ArgumentParser(
        prog="python -m cpex_tool_firewall.config", description="The table of settings of the README."
    )
    options.add_argument("file", nargs="?", type=Path, help="renew the table between its marks in this file")
    target: Path | None = options.parse_args(arguments).file
    if target is None:
        print(settings_table())
    else:
        target.write_text(with_settings_table(target.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
