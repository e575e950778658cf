"""The project that everything belongs to until somebody makes a second one."""

from __future__ import annotations

from typing import Any

from django.db import migrations


def create(apps: Any, schema_editor: Any) -> None:
    """Create the project `default`."""
    apps.get_model("opscore", "Project").objects.get_or_create(slug="default")


class Migration(migrations.Migration):
    """Data only; going back keeps the project, because rows may refer to it."""

    dependencies = [("opscore", "0001_initial")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop, elidable=False)]
