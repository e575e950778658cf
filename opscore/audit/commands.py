"""What people do on the machine itself: who it was, and its row."""

from __future__ import annotations

import getpass
import os

from opscore.audit.record import Actor


def person() -> Actor:
    """Return who runs this command; ask before anything is changed."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        name = f"uid {os.getuid()}"
    return Actor(name, "command")
