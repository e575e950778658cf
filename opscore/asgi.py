"""The web application for an ASGI server: `granian --interface asgi opscore.asgi:application`."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opscore.settings")
django.setup(set_prefix=False)

from django.db.backends.signals import connection_created  # noqa: E402 - needs the settings

from opscore import vault  # noqa: E402
from opscore.api.asgi import Application, bound_statements  # noqa: E402

vault.ask_each_time()
connection_created.connect(bound_statements, dispatch_uid="opscore.web")
application = Application()
