"""Fields that take one JSON type each: what is sent is what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rest_framework import serializers

_TEXTS = (
    serializers.CharField,
    serializers.ChoiceField,
    serializers.DateTimeField,
    serializers.UUIDField,
)
_NUMBERS = (serializers.IntegerField, serializers.FloatField)


def refuse_other_types(field: serializers.Field[Any, Any, Any, Any]) -> None:
    """Have a field, and those inside it, refuse what JSON writes as another type."""
    for inner in _inside(field):
        refuse_other_types(inner)
    expected = _expected(field)
    if expected is None:
        return
    word, types = expected
    convert = field.run_validation

    def strict(data: Any = serializers.empty) -> Any:
        # A boolean is a number in Python.
        other = not isinstance(data, types) or (isinstance(data, bool) and bool not in types)
        if data is not serializers.empty and data is not None and other:
            raise serializers.ValidationError(f"must be {word}")
        return convert(data)

    field.run_validation = strict  # type: ignore[method-assign]


def _inside(field: Any) -> Iterable[Any]:
    if isinstance(field, serializers.ListField):
        return [field.child]
    return field.fields.values() if isinstance(field, serializers.Serializer) else []


def _expected(field: Any) -> tuple[str, tuple[type, ...]] | None:
    if isinstance(field, serializers.BooleanField):
        return "true or false", (bool,)
    if isinstance(field, _TEXTS):
        return "text", (str,)
    if isinstance(field, _NUMBERS):
        return "a number", (int, float)
    return None
