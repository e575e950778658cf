"""The platform's settings plus a deliberate break of the engine: the negative control."""

from __future__ import annotations

from opscore.settings import *  # noqa: F403
from opscore.settings import INSTALLED_APPS as PLATFORM_APPS

INSTALLED_APPS = [*PLATFORM_APPS, "tests.chaos.sabotage.Sabotage"]
