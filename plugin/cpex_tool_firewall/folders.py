# SPDX-License-Identifier: Apache-2.0
"""Names in a folder that survive a power loss."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Returns when the names that were made, moved or removed in `folder` are on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
