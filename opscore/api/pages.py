"""Lists in pages: newest first, continued by the id of the last row, so inserts shift nothing."""

from __future__ import annotations

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


class Page(BasePagination):
    """`?limit=` rows `?after=` an id; the answer is `{results, next}`, `next` null at the end."""

    def paginate_queryset(
        self, queryset: Any, request: Request, view: APIView | None = None
    ) -> list[Any]:
        """Return one page; raises InvalidError for a limit or an id that makes no sense."""
        limit = _limit(request.query_params.get("limit"))
        after = request.query_params.get("after")
        if after is not None:
            queryset = queryset.filter(pk__lt=_key(queryset, after))
        rows = list(queryset.order_by("-pk")[: limit + 1])
        self._next = _next(request, rows[limit - 1].pk) if len(rows) > limit else None
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
                    "type": "string",
                    "nullable": True,
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
                "description": "Only rows older than the one with this id.",
                "schema": (
                    {"type": "string", "format": "uuid"} if is_uuid else {"type": "integer"}
                ),
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


def _key(queryset: QuerySet[Any], text: str) -> Any:
    try:
        return queryset.model._meta.pk.to_python(text)  # noqa: SLF001 - Django's documented name
    except (ValidationError, ValueError):
        raise InvalidError(
            "The page cannot be read.", [Problem("is not an id of this list", "after")]
        ) from None


def _next(request: Request, last: Any) -> str:
    query = request.query_params.copy()
    query["after"] = str(last)
    pairs = [(name, value) for name, values in query.lists() for value in values]
    return f"{request.path}?{urlencode(pairs)}"
