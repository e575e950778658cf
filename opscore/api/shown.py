"""Objects as JSON, by a serializer that is made once for each thread; no field for nothing."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from datetime import UTC
from functools import cache, cached_property
from typing import Any, NamedTuple

from rest_framework import serializers
from rest_framework.renderers import JSONRenderer


class _Made(NamedTuple):
    serializer: serializers.Serializer[Any]
    context: dict[str, Any]
    """The serializer's own: what it is changed to, its fields see."""


class Shown:
    """Call it with an object and what its serializer wants as `context`.

    A serializer makes its fields anew for each use, which costs more than the query for the
    object. Those of one thread may be used again: they keep nothing but their context.
    """

    def __init__(self, serializer_class: type[serializers.Serializer[Any]]) -> None:
        self._class = serializer_class
        self._kept = threading.local()

    @cached_property
    def fields(self) -> list[str]:
        """The names of all fields."""
        return list(self._class().fields)

    def __call__(self, instance: Any, only: Collection[str] = (), **context: Any) -> dict[str, Any]:
        """Return the object's fields; `only` names those that are made, empty: all."""
        return self.rows([instance], only, **context)[0]

    def rows(
        self, instances: Iterable[Any], only: Collection[str] = (), **context: Any
    ) -> list[dict[str, Any]]:
        """Do the same for many objects, which share a context."""
        made = self._some(only) if only else self._whole()
        made.context.update(context)
        try:
            return [dict(made.serializer.to_representation(instance)) for instance in instances]
        finally:
            made.context.clear()

    def _whole(self) -> _Made:
        if not hasattr(self._kept, "made"):
            self._kept.made = self._made()
        found: _Made = self._kept.made
        return found

    def _some(self, only: Collection[str]) -> _Made:
        made = self._made()
        for name in set(made.serializer.fields) - set(only):
            made.serializer.fields.pop(name)
        return made

    def _made(self) -> _Made:
        context: dict[str, Any] = {}
        serializer = self._class(context=context)
        for field in serializer.fields.values():
            if isinstance(field, serializers.DateTimeField):
                # Else each value asks for the zone of the present thread, which nobody changes.
                field.timezone = UTC
        return _Made(serializer, context)


@cache
def shown_by(serializer_class: type[serializers.Serializer[Any]]) -> Shown:
    """Return what shows objects by this serializer."""
    return Shown(serializer_class)


class ReadyJSON(JSONRenderer):
    """Renders JSON; bytes are JSON already, made once for several answers."""

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        """Return the body."""
        return data if isinstance(data, bytes) else super().render(data, *args, **kwargs)
