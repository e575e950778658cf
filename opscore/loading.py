"""Single rows as model objects, by prepared statements.

Building the SQL of a lookup costs the ORM several times what PostgreSQL needs to answer it; most
requests look up their key and one object.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from django.db.models import Model

from opscore.database import Row, query

M = TypeVar("M", bound=Model)


def load(model: type[M], **equals: Any) -> M:
    """Return the one row whose columns are equal to these. Raises `model.DoesNotExist`."""
    rows = query(_lookup(model, tuple(equals)), equals)
    if not rows:
        raise model.DoesNotExist  # type: ignore[attr-defined]
    return loaded(model, rows[0])


def columns(*models: type[Model]) -> str:
    """Return what to select for `loaded`; the tables must stand under their own names."""
    return ", ".join(
        f'{name}."{field.column}" AS "{name}.{field.attname}"'
        for model in models
        for name, field in ((_table(model), field) for field in _fields(model))
    )


def loaded(model: type[M], row: Row) -> M:
    """Return the object that a row with `columns(model)` holds."""
    fields = _fields(model)
    values = [_python(field, row[f"{_table(model)}.{field.attname}"]) for field in fields]
    return model.from_db("default", [field.attname for field in fields], values)


@cache
def _lookup(model: type[Model], names: tuple[str, ...]) -> str:
    wanted = " AND ".join(f'"{name}" = %({name})s' for name in names)
    return f"SELECT {columns(model)} FROM {_table(model)} WHERE {wanted}"  # noqa: S608 - names


def _python(field: Any, value: Any) -> Any:
    convert = getattr(field, "from_db_value", None)
    return value if convert is None else convert(value, None, None)


def _table(model: type[Model]) -> str:
    return model._meta.db_table  # noqa: SLF001 - Django's documented way to ask a model


@cache
def _fields(model: type[Model]) -> tuple[Any, ...]:
    return tuple(model._meta.concrete_fields)  # noqa: SLF001
