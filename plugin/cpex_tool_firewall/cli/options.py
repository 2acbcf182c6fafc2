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
