# SPDX-License-Identifier: Apache-2.0
"""The tags of findings: every signal has some, and every tag has its published name."""

import re

import pytest
from cpex_tool_firewall._native import SIGNALS
from cpex_tool_firewall.finding_tags import SIGNAL_TAGS, TAG_NAMES, tags_of

_FORM = re.compile(r"ASI(0[1-9]|10)|MCP(0[1-9]|10):2025|AML\.T\d{4}(\.\d{3})?")


@pytest.mark.parametrize("signal", [*SIGNALS, "uninspectable"])
def test_every_signal_has_tags(signal: str) -> None:
    assert tags_of(signal)
    assert any(tag.startswith("ASI") for tag in tags_of(signal))


def test_every_tag_has_its_form_and_its_name_and_no_name_is_idle() -> None:
    used = {tag for tags in SIGNAL_TAGS.values() for tag in tags}
    assert used == set(TAG_NAMES)
    assert all(_FORM.fullmatch(tag) for tag in used)


def test_a_signal_without_a_line_has_none() -> None:
    assert tags_of("something_new") == ()
