"""One object as JSON, by a serializer that is made once for each thread; no field for nothing."""

from __future__ import annotations

import threading
from collections.abc import Collection
from functools import cached_property
from typing import Any

from rest_framework import serializers
from rest_framework.renderers import JSONRenderer


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
        if only:
            return self._some(instance, only, context)
        if not hasattr(self._kept, "serializer"):
            self._kept.context = {}
            self._kept.serializer = self._class(context=self._kept.context)
        self._kept.context.clear()
        self._kept.context.update(context)
        return dict(self._kept.serializer.to_representation(instance))

    def _some(
        self, instance: Any, only: Collection[str], context: dict[str, Any]
    ) -> dict[str, Any]:
        serializer = self._class(context=context)
        for name in set(serializer.fields) - set(only):
            serializer.fields.pop(name)
        return dict(serializer.to_representation(instance))


class ReadyJSON(JSONRenderer):
    """Renders JSON; bytes are JSON already, made once for several answers."""

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        """Return the body."""
        return data if isinstance(data, bytes) else super().render(data, *args, **kwargs)
