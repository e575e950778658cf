"""Waiting for a database that is away."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from random import Random
from typing import TypeVar

from django.db import InterfaceError, OperationalError

from opscore.database import release
from opscore.logs import get_logger

log = get_logger(__name__)
_rng = Random()  # noqa: S311 - jitter, no secret
T = TypeVar("T")

#: How long a worker waits for its database before it gives up; its task is then given back.
PATIENCE_S = 60.0


def patiently(action: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """Do a database action, again and again while the database is away.

    Each statement of the engine is a transaction guarded by a fence, so repeating one whose
    answer was lost changes nothing twice. Ends the process when patience is over: its session
    then ends, and what it holds runs elsewhere.
    """
    deadline = time.monotonic() + patience_s
    delay_s = 0.1
    while True:
        try:
            return action()
        except (OperationalError, InterfaceError) as error:
            release()
            if time.monotonic() > deadline:
                log.critical("database.away", error=str(error))
                os._exit(os.EX_TEMPFAIL)
        time.sleep(_rng.uniform(delay_s / 2, delay_s))
        delay_s = min(delay_s * 2, 2.0)
