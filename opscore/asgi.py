"""The web application for an ASGI server: `granian --interface asgi opscore.asgi:application`."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opscore.settings")
django.setup(set_prefix=False)

from opscore.api.asgi import Application  # noqa: E402 - needs the settings

application = Application()
