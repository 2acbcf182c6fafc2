# SPDX-License-Identifier: Apache-2.0
"""The demonstration: `make demo` plays one story through a real gateway and checks every step of it.

story.py says what happens and what is expected, report.py shows it, __main__.py runs it. The gateway comes
from the lab that the tests use (tests/gateway/gateway_lab).
"""
