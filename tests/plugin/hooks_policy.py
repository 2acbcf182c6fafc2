# SPDX-License-Identifier: Apache-2.0
"""A policy plugin for tests: refuses every tool whose name starts with "delete"."""

from cpex.framework import Plugin, PluginContext, PluginViolation, ToolPreInvokePayload, ToolPreInvokeResult


class RefuseDeletes(Plugin):
    async def tool_pre_invoke(
        self, payload: ToolPreInvokePayload, context: PluginContext
    ) -> ToolPreInvokeResult:
        if not payload.name.startswith("delete"):
            return ToolPreInvokeResult()
        violation = PluginViolation(reason="policy", description="not allowed", code="POLICY")
        return ToolPreInvokeResult(continue_processing=False, violation=violation)
