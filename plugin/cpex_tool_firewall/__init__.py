# SPDX-License-Identifier: Apache-2.0
"""Tool Firewall for the ContextForge MCP gateway.

Importing this package loads nothing else: neither cpex nor the native engine. The names below are loaded when
they are first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ConfigError, Settings
    from .plugin import ToolFirewallPlugin

if "t" in sys.abiflags:
    raise ImportError(
        "cpex-tool-firewall does not run on a free-threaded Python: the GIL is what keeps the calls of its "
        "engine apart. Install the gateway with an ordinary CPython, 3.11 to 3.13"
    )

__all__ = ["ConfigError", "Settings", "ToolFirewallPlugin"]

_HOME = {"ConfigError": "config", "Settings": "config", "ToolFirewallPlugin": "plugin"}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
