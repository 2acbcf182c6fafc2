# SPDX-License-Identifier: Apache-2.0
"""Which published risks and techniques a signal may be a sign of.

Three vocabularies: the OWASP Top 10 for Agentic Applications (2026), the OWASP MCP Top 10 (2025, beta; MCP06
was called "Prompt Injection via Contextual Payloads" in older drafts) and MITRE ATLAS 5.6.0. A tag says what
to think of, not what happened: a signal sees unusual calls and no intent.
"""

from typing import Final

TAG_NAMES: Final[dict[str, str]] = {
    "ASI01": "Agent Goal Hijack",
    "ASI02": "Tool Misuse and Exploitation",
    "ASI03": "Identity and Privilege Abuse",
    "ASI08": "Cascading Failures",
    "ASI10": "Rogue Agents",
    "MCP01:2025": "Token Mismanagement & Secret Exposure",
    "MCP02:2025": "Privilege Escalation via Scope Creep",
    "MCP06:2025": "Intent Flow Subversion",
    "MCP07:2025": "Insufficient Authentication & Authorization",
    "MCP10:2025": "Context Injection & Over-Sharing",
    "AML.T0012": "Valid Accounts",
    "AML.T0029": "Denial of AI Service",
    "AML.T0034": "Cost Harvesting",
    "AML.T0034.000": "Cost Harvesting: Excessive Queries",
    "AML.T0034.001": "Cost Harvesting: Resource-Intensive Queries",
    "AML.T0034.002": "Cost Harvesting: Agentic Resource Consumption",
    "AML.T0048.000": "External Harms: Financial Harm",
    "AML.T0053": "AI Agent Tool Invocation",
    "AML.T0086": "Exfiltration via AI Agent Tool Invocation",
    "AML.T0091.000": "Use Alternate Authentication Material: Application Access Token",
}
"""The published name of every tag in use."""

_TOO_MANY: Final = ("ASI02", "ASI08", "AML.T0029", "AML.T0034.000")
_TOO_DEAR: Final = ("ASI08", "AML.T0034", "AML.T0034.001", "AML.T0048.000")

SIGNAL_TAGS: Final[dict[str, tuple[str, ...]]] = {
    "novelty": ("ASI02", "ASI03", "ASI10", "MCP02:2025", "AML.T0053", "AML.T0012"),
    "novel_path": ("ASI01", "ASI10", "MCP06:2025", "AML.T0053"),
    "off_hours": ("ASI03", "ASI10", "MCP07:2025", "AML.T0012", "AML.T0091.000"),
    "frequency": _TOO_MANY,
    "burst": _TOO_MANY,
    "rate_spike": _TOO_MANY,
    "cost": _TOO_DEAR,
    "burn_spike": _TOO_DEAR,
    "retry_loop": ("ASI08", "AML.T0034.002"),
    "argument_novelty": ("ASI01", "ASI02", "MCP06:2025", "MCP10:2025", "AML.T0086"),
    "identity_novelty": ("ASI03", "MCP01:2025", "MCP07:2025", "AML.T0012", "AML.T0091.000"),
    "uninspectable": ("ASI02",),
}
"""Signal to tags. A signal that is not here has none."""


def tags_of(signal: str) -> tuple[str, ...]:
    """The tags of a signal, () for one that has none."""
    return SIGNAL_TAGS.get(signal, ())
