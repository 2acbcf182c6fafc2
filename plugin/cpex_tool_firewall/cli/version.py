# SPDX-License-Identifier: Apache-2.0
"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Version of this package, "unknown" when it runs from a plain source tree."""
    try:
        return version("cpex-tool-firewall")
    except PackageNotFoundError:
        return "unknown"
