"""Lists in pages, continued behind the last row that was seen, so inserts shift nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.core.exceptions import ValidationError
from django.db.models import QuerySet, UUIDField
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.errors import InvalidError, Problem

if TYPE_CHECKING:
    # DRF's views import this module through its settings.
    from rest_framework.views import APIView

LIMIT = 50
MAX_LIMIT = 200


#: Ids grow with time. Every other column here must be unique within its list and indexed.
BY_AGE: Mapping[str, str] = {"created_at": "pk"}
BY_AGE_OR_NAME: Mapping[str, str] = {**BY_AGE, "name": "name"}


class Page(BasePagination):
    """`?limit=` rows `?after=` a row; the answer is `{results, next}`, `next` null at the end."""

    def paginate_queryset(
        self, queryset: Any, request: Request, view: APIView | None = None
    ) -> list[Any]:
        """Return one page; raises InvalidError for what makes no sense."""
        limit = _limit(request.query_params.get("limit"))
        column, is_falling = _ordering(request.query_params.get("ordering"), orderings_of(view))
        after = request.query_params.get("after")
        if after is not None:
            compared = "lt" if is_falling else "gt"
            queryset = queryset.filter(**{f"{column}__{compared}": _key(queryset, column, after)})
        rows = list(queryset.order_by(f"-{column}" if is_falling else column)[: limit + 1])
        last = getattr(rows[limit - 1], column) if len(rows) > limit else None
        self._next = None if last is None else _next(request, last)
        return rows[:limit]

    def get_paginated_response(self, data: Any) -> Response:
        """Wrap the rows; the address of the next page is relative to the server."""
        return Response({"results": data, "next": self._next})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe the answer in OpenAPI."""
        return {
            "type": "object",
            "required": ["results", "next"],
            "properties": {
                "results": schema,
                "next": {
                    "type": ["string", "null"],
                    "description": "Path and query of the next page.",
                },
            },
        }

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the two parameters in OpenAPI."""
        count = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": LIMIT}
        model = view.serializer_class.Meta.model  # type: ignore[attr-defined]
        is_uuid = isinstance(model._meta.pk, UUIDField)  # noqa: SLF001 - Django's documented name
        return [
            {"name": "limit", "in": "query", "description": "Rows in the page.", "schema": count},
            {
                "name": "after",
                "in": "query",
                "description": "Only rows behind the one with this id; ordered by name, behind this "
                "name. Take it from `next`.",
                "schema": _schema_of_after(is_uuid, orderings_of(view)),
            },
            {
                "name": "ordering",
                "in": "query",
                "description": "`-` is falling, newest first.",
                "schema": {"type": "string", "enum": _words(orderings_of(view))},
            },
            {
                "name": "fields",
                "in": "query",
                "description": "Only these fields of each row, separated by commas.",
                "style": "form",
                "explode": False,
                "schema": {"type": "array", "items": {"type": "string", "enum": _fields(view)}},
            },
        ]


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MAX_LIMIT):
        raise InvalidError(
            "The page cannot be read.", [Problem(f"must be 1 to {MAX_LIMIT}", "limit")]
        )
    return int(text)


def orderings_of(view: APIView | None) -> Mapping[str, str]:
    """Return word -> column by which a list can be ordered; the first one is the default."""
    found: Mapping[str, str] = getattr(view, "orderings", BY_AGE)
    return found


def _words(orderings: Mapping[str, str]) -> list[str]:
    return [word for name in orderings for word in (f"-{name}", name)]


def _ordering(text: str | None, orderings: Mapping[str, str]) -> tuple[str, bool]:
    """Return the column and whether it falls; without a word the first one falls."""
    if text is None:
        return next(iter(orderings.values())), True
    column = orderings.get(text.removeprefix("-"))
    if column is None:
        known = ", ".join(_words(orderings))
        problem = Problem(f"this list has the orderings {known}", "ordering")
        raise InvalidError("The list cannot be ordered like that.", [problem])
    return column, text.startswith("-")


def _fields(view: APIView) -> list[str]:
    return list(view.serializer_class().fields)  # type: ignore[attr-defined]


def _schema_of_after(is_uuid: bool, orderings: Mapping[str, str]) -> dict[str, Any]:
    if set(orderings.values()) != {"pk"}:
        return {"type": "string"}
    return {"type": "string", "format": "uuid"} if is_uuid else {"type": "integer"}


def _key(queryset: QuerySet[Any], column: str, text: str) -> Any:
    # Django's documented name.
    fields = queryset.model._meta  # noqa: SLF001
    field = fields.pk if column == "pk" else fields.get_field(column)
    try:
        return field.to_python(text)
    except (ValidationError, ValueError):
        raise InvalidError(
            "The page cannot be read.", [Problem("is not an id of this list", "after")]
        ) from None


def _next(request: Request, last: Any) -> str:
    query = request.query_params.copy()
    query["after"] = str(last)
    pairs = [(name, value) for name, values in query.lists() for value in values]
    return f"{request.path}?{urlencode(pairs)}"
