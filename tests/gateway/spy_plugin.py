# SPDX-License-Identifier: Apache-2.0
"""A plugin that only writes down what the gateway shows it: proves the lab and what our plugin relies on."""

import json
import os
from pathlib import Path
from typing import Any

from cpex.framework import (
    Plugin,
    PluginConfig,
    PluginContext,
    PluginViolation,
    ToolPostInvokePayload,
    ToolPostInvokeResult,
    ToolPreInvokePayload,
    ToolPreInvokeResult,
)


class SpyPlugin(Plugin):
    """config: `notes` (file that gets one JSON line per hook call), `block` (tool names to refuse)."""

    def __init__(self, config: PluginConfig) -> None:
        super().__init__(config)
        settings = config.config or {}
        self._notes = Path(settings["notes"])
        self._block = frozenset(settings.get("block", ()))

    async def tool_pre_invoke(
        self, payload: ToolPreInvokePayload, context: PluginContext
    ) -> ToolPreInvokeResult:
        shared = context.global_context
        tool = shared.metadata.get("tool")
        original = getattr(tool, "original_name", None)
        self._note(
            "pre",
            name=payload.name,
            original_name=original,
            gateway_id=getattr(tool, "gateway_id", None),
            user=shared.user,
            tenant=shared.tenant_id,
            server=shared.server_id,
            arguments=dict(payload.args or {}),
        )
        shared.state["spy"] = original
        if original in self._block:
            violation = PluginViolation(
                reason="not today",
                description="the spy refuses this tool",
                code="SPY_REFUSED",
                details={"seen": 1},
            )
            return ToolPreInvokeResult(continue_processing=False, violation=violation)
        return ToolPreInvokeResult(metadata={"spy": {"spy_flag": True, "total_checked": 1}})

    async def tool_post_invoke(
        self, payload: ToolPostInvokePayload, context: PluginContext
    ) -> ToolPostInvokeResult:
        self._note(
            "post", name=payload.name, carried=context.global_context.state.get("spy"), result=payload.result
        )
        return ToolPostInvokeResult()

    async def shutdown(self) -> None:
        self._note("shutdown")

    def _note(self, what: str, **fields: Any) -> None:
        with self._notes.open("a", encoding="utf-8") as file:
            file.write(
                json.dumps({"what": what, "pid": os.getpid(), "instance": id(self), **fields}, default=str)
                + "\n"
            )


def read_notes(path: Path) -> list[dict[str, Any]]:
    """What a spy wrote so far, oldest first."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
