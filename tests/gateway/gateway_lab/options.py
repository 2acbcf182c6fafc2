# SPDX-License-Identifier: Apache-2.0
"""How a lab's gateway is started: its plugin configuration, environment and workers."""

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

ADMIN_EMAIL: Final = "admin@example.com"
# Of this run only, for a gateway on 127.0.0.1 in a temporary folder. Letter and digit take turns because
# the gateway refuses passwords with sequences.
PASSWORD: Final = (
    "L-" + "".join(secrets.choice("bdgkmrtvxz") + secrets.choice("2468") for _ in range(12)) + "!"
)
_SIGNING_SECRET: Final = secrets.token_urlsafe(48)
_ENCRYPTION_SECRET: Final = secrets.token_urlsafe(48)

_INHERITED: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "ASAN_OPTIONS",
)


@dataclass(frozen=True)
class GatewayOptions:
    """plugins: entries of the plugin configuration's `plugins` list. env: wins over the lab's own settings.

    python_path: folders the gateway's interpreter also imports from (plugins that live in tests). preload: of
    gunicorn: the application is loaded before the workers are forked.
    """

    plugins: Sequence[Mapping[str, Any]] = ()
    workers: int = 1
    server: Literal["uvicorn", "gunicorn"] = "uvicorn"
    preload: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    python_path: Sequence[Path] = ()
    start_seconds: float = 120.0
    tool_timeout_seconds: int = 30


def plugin_document(plugins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The gateway's plugin configuration document (what PLUGINS_CONFIG_FILE points at)."""
    return {
        "plugins": [dict(plugin) for plugin in plugins],
        "plugin_dirs": [],
        "plugin_settings": {"plugin_timeout": 30, "fail_on_plugin_error": True, "enable_plugin_api": True},
    }


def environment(options: GatewayOptions, *, folder: Path, config: Path, port: int) -> dict[str, str]:
    """The gateway's whole environment: nothing of the caller's but the few names in _INHERITED."""
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    env |= {
        "HOME": str(folder),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "ENVIRONMENT": "development",
        "DATABASE_URL": f"sqlite:///{folder}/gateway.db",
        "CACHE_TYPE": "memory",
        "LOG_LEVEL": "INFO",
        "PLUGINS_ENABLED": "true",
        "PLUGINS_CONFIG_FILE": str(config),
        # Without it the gateway starts unscreened when a plugin cannot start.
        "PLUGINS_FAIL_ON_PLUGIN_ERROR": "true",
        "TOOL_FIREWALL_STATE": str(folder / "state"),
        "AUTH_REQUIRED": "true",
        "MCP_CLIENT_AUTH_ENABLED": "true",
        "JWT_SECRET_KEY": _SIGNING_SECRET,
        "AUTH_ENCRYPTION_SECRET": _ENCRYPTION_SECRET,
        "BASIC_AUTH_PASSWORD": PASSWORD,
        "PLATFORM_ADMIN_EMAIL": ADMIN_EMAIL,
        "PLATFORM_ADMIN_PASSWORD": PASSWORD,
        "DEFAULT_USER_PASSWORD": PASSWORD,
        "ADMIN_REQUIRE_PASSWORD_CHANGE_ON_BOOTSTRAP": "false",
        "PASSWORD_CHANGE_ENFORCEMENT_ENABLED": "false",
        "SECURE_COOKIES": "false",
        "MCPGATEWAY_UI_ENABLED": "false",
        "MCPGATEWAY_ADMIN_API_ENABLED": "true",
        "SSRF_PROTECTION_ENABLED": "false",  # the upstream is on 127.0.0.1
        "RATE_LIMITING_ENABLED": "false",  # bursts are what the plugin is tested with
        "ENABLE_METRICS": "true",
        "OBSERVABILITY_ENABLED": "false",
        "TOOL_TIMEOUT": str(options.tool_timeout_seconds),
    }
    if options.python_path:
        env["PYTHONPATH"] = os.pathsep.join(str(path) for path in options.python_path)
    env |= options.env
    return env


def command(options: GatewayOptions, *, port: int) -> list[str]:
    """The command line that starts the gateway with this interpreter's installation of it."""
    scripts = Path(sys.executable).parent
    if options.server == "gunicorn":
        return [
            str(scripts / "gunicorn"),
            *("--workers", str(options.workers)),
            *("--worker-class", "uvicorn.workers.UvicornWorker"),
            *("--bind", f"127.0.0.1:{port}"),
            *("--timeout", "120"),
            *(("--preload",) if options.preload else ()),
            "mcpgateway.main:app",
        ]
    return [
        str(scripts / "mcpgateway"),
        "mcpgateway.main:app",
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        *("--workers", str(options.workers)),
        "--no-access-log",
    ]
