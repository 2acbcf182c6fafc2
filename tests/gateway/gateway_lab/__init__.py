# SPDX-License-Identifier: Apache-2.0
"""A real ContextForge gateway, a real upstream MCP server and real clients, on free ports in one folder.

Used by the tests in tests/gateway and by the demo. Runs in the interpreter that has the gateway installed and
fits both pairs there are: gateway 1.1.0 with mcp 2.x (Python 3.12 and newer), gateway 1.0.7 with mcp 1.x.

    with Lab(folder, GatewayOptions(plugins=[...])) as lab:
        answer = lab.call("alice", "db_query", {"sql": "select 1"}, transport="rpc")
"""

from gateway_lab.answer import Answer
from gateway_lab.lab import TRANSPORTS, Lab
from gateway_lab.options import GatewayOptions, plugin_document
from gateway_lab.process import LabError

__all__ = ["TRANSPORTS", "Answer", "GatewayOptions", "Lab", "LabError", "plugin_document"]
