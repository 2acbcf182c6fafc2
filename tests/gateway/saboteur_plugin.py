# SPDX-License-Identifier: Apache-2.0
"""A plugin that breaks the tool firewall from inside: for the one fault that cannot be had from outside.

It lives in the tests, so nobody can switch this on in a gateway that was not started with it. It runs before
the firewall in the same call, and breaks it there as the file `orders` says:

- ``before``: the hook fails before there is a verdict;
- ``after``: it fails when there is one;
- nothing: all is repaired.
"""

from pathlib import Path
from typing import Any

from cpex.framework import Plugin, PluginConfig, PluginContext, ToolPreInvokePayload, ToolPreInvokeResult
from cpex_tool_firewall import response, runtime

SECRET = "words-of-the-exception"

_signals = response.signals


def _fails(*_: Any) -> Any:
    raise RuntimeError(SECRET)


class SaboteurPlugin(Plugin):
    """config: `orders`, the path of a file."""

    def __init__(self, config: PluginConfig) -> None:
        super().__init__(config)
        self._orders = Path((config.config or {})["orders"])

    async def tool_pre_invoke(
        self, payload: ToolPreInvokePayload, context: PluginContext
    ) -> ToolPreInvokeResult:
        order = self._orders.read_text(encoding="utf-8") if self._orders.exists() else ""
        response.signals = _fails if order == "after" else _signals
        for found in runtime.running():
            for instance in list(found.instances):
                if order == "before":
                    instance._screen = _fails
                elif instance._screen is _fails:
                    instance.detach()  # it attaches itself anew
        return ToolPreInvokeResult()
