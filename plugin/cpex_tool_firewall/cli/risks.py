# SPDX-License-Identifier: Apache-2.0
"""How risks, signals and names look in a terminal."""

from typing import Annotated

import typer
from rich.cells import cell_len, set_cell_size

from ..finding_tags import SIGNAL_TAGS
from ..names import printable
from .output import WRONG_INPUT, console, fail

_CUT = "…"

SignalOption = Annotated[
    str | None, typer.Option("--signal", metavar="S", help="Only this signal, such as novelty or retry_loop.")
]


def risk_style(risk: float) -> str:
    """By the bands: 1/3 is listed, 0.5 is acted on, 2/3 is severe."""
    if risk >= 2 / 3:
        return "bold red"
    if risk >= 0.5:
        return "red"
    return "yellow" if risk >= 1 / 3 else ""


def known_signal(signal: str, *also: str) -> str:
    """The signal, if there is one of that name. Ends the command otherwise."""
    from .._native import SIGNALS

    known = [*dict.fromkeys((*SIGNALS, *SIGNAL_TAGS)), *also]
    if signal not in known:
        fail(f"{signal!r} is not a signal; there are: {', '.join(known)}", WRONG_INPUT)
    return signal


def fitted(text: str, width: int) -> str:
    """A name in exactly `width` columns. In a terminal it is cut to fit; in a file it stays whole."""
    text = printable(text)
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + _CUT if console().is_terminal else text
