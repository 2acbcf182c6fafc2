# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

from typing import Annotated

import typer

StateOption = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="DIR",
        help="State folder of the gateway's plugin. Default: TOOL_FIREWALL_STATE, else "
        "/var/lib/cpex-tool-firewall for root and $XDG_STATE_HOME/cpex-tool-firewall for others.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON. Times are seconds since the epoch, UTC.")
]
TenantOption = Annotated[
    str, typer.Option("--tenant", metavar="T", help="Only for this tenant (the gateway's team id).")
]
ToolOption = Annotated[
    str, typer.Option("--tool", metavar="X", help="Only for this tool, as its server names it.")
]
UserOption = Annotated[
    str, typer.Option("--user", metavar="U", help="Only for this user, as the gateway names them.")
]
WhyOption = Annotated[
    str, typer.Option("--why", metavar="TEXT", help="The reason, for the record: 200 characters at most.")
]
FollowOption = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on with what comes, until interrupted.")
]
