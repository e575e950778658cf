"""What all endpoints share: strict input, the project of the key, lists with filters."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from django.http import HttpRequest
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from opscore.api.auth import key_of, project_of
from opscore.api.parsers import StrictJSON
from opscore.api.schema import Schema
from opscore.api.strict import refuse_other_types
from opscore.errors import InvalidError, Problem
from opscore.models import Project

S = TypeVar("S", bound=serializers.Serializer[Any])
_PAGING = frozenset({"after", "limit"})
_WHOLE = re.compile(r"-?[0-9]+")


class AlwaysJSON(BaseContentNegotiation):
    """Answer JSON whatever `Accept` says; a browser's text/html would get a 406."""

    def select_parser(self, request: Request, parsers: Any) -> BaseParser | None:
        """Return the parser for the body's type; a body without one counts as the first."""
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        if not kind:
            return parsers[0]  # type: ignore[no-any-return]
        return next((parser for parser in parsers if parser.media_type == kind), None)

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the one renderer."""
        return renderers[0], renderers[0].media_type


class StrictSerializer(serializers.Serializer[Any]):
    """Input whose unknown fields are errors, named, with the nearest known one.

    A value of another JSON type is an error too: DRF by itself takes 0 for a text, "no" for
    false, and false for an id.
    """

    #: Said in the API document.
    is_strict = True

    def get_fields(self) -> dict[str, Any]:
        """Return the fields, each taking only its own JSON type."""
        fields: dict[str, Any] = super().get_fields()
        for field in fields.values():
            refuse_other_types(field)
        return fields

    def to_internal_value(self, data: Any) -> Any:
        """Return the known fields, or report everything that is wrong at once."""
        names = data if isinstance(data, Mapping) else ()
        wrong: dict[str, Any] = {
            str(name): [unknown_word("field", str(name), list(self.fields))]
            for name in names
            if name not in self.fields
        }
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if not isinstance(error.detail, dict):
                raise
            raise serializers.ValidationError({**wrong, **error.detail}) from None
        if wrong:
            raise serializers.ValidationError(wrong)
        return value


class KnownParameters(DjangoFilterBackend):
    """Filters of a list; a parameter that is no filter is an error, not silence."""

    def filter_queryset(
        self, request: Any, queryset: QuerySet[Any], view: APIView
    ) -> QuerySet[Any]:
        """Filter the rows; raises InvalidError for parameters that are unknown or would be lost."""
        filterset_class = getattr(view, "filterset_class", None)
        filters = filterset_class.base_filters if filterset_class else {}
        known = sorted(_PAGING | set(filters))
        wrong = {
            name: _overlooked(filters.get(name), value)
            if name in known
            else unknown_word("parameter", name, known)
            for name, value in request.query_params.items()
        }
        problems = [Problem(message, name) for name, message in wrong.items() if message]
        if problems:
            raise InvalidError("The list cannot be filtered like that.", problems)
        return super().filter_queryset(request, queryset, view)


def _overlooked(parameter: django_filters.Filter | None, value: str) -> str:
    """Say what is wrong with a value that the filter itself would take for none; '': nothing."""
    if isinstance(parameter, django_filters.BooleanFilter):
        return "" if value.lower() in {"true", "false"} else "must be true or false"
    if isinstance(parameter, django_filters.NumberFilter):
        return "" if _WHOLE.fullmatch(value) else "must be a whole number"
    is_text = parameter is None or isinstance(parameter, django_filters.CharFilter)
    return "" if is_text or value else "must not be empty"


class Endpoint(APIView):
    """A view of the API; `scopes` names the scope of a method where it is not the usual one."""

    scopes: ClassVar[Mapping[str, str]] = {}
    session_methods: ClassVar[tuple[str, ...]] = ()
    """Methods for the key of one agent session, which they hold to that session's own work."""
    parser_classes = [StrictJSON]
    content_negotiation_class = AlwaysJSON
    schema = Schema()

    @property
    def project(self) -> Project:
        """The namespace of the key that was sent."""
        return project_of(self.request)

    @property
    def own_session(self) -> UUID | None:
        """The only session that the key may act for; None: it is not bound to one."""
        return key_of(self.request).session_id

    @property
    def actor(self) -> str:
        """Who does it, for events and logs: the key's name."""
        return str(self.request.user)

    def checked(self, serializer_class: type[S]) -> dict[str, Any]:
        """Return the body, validated; an empty body counts as {}. Raises ValidationError."""
        body = self.request.data
        empty = not self.request._request.body  # noqa: SLF001 - "was anything sent at all"
        serializer = serializer_class(data={} if empty else body)
        serializer.is_valid(raise_exception=True)
        data: dict[str, Any] = serializer.validated_data
        return data


class Listing(Endpoint, ListAPIView[Any]):
    """A list with filters and pages; `newest` gives its rows for the key's project."""

    filter_backends = [KnownParameters]

    def newest(self) -> QuerySet[Any]:
        """Return the rows that the key may see."""
        raise NotImplementedError

    def get_queryset(self) -> QuerySet[Any]:
        """Return nothing while the document is generated, which has no key."""
        queryset = self.newest() if not is_documenting(self) else None
        return self._model().none() if queryset is None else queryset

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one page, newest first."""
        return self.list(request, *args, **kwargs)

    def _model(self) -> Any:
        return self.serializer_class.Meta.model._default_manager  # type: ignore[union-attr]  # noqa: SLF001


def is_documenting(view: APIView) -> bool:
    """Tell whether the view was made by the generator of the OpenAPI document."""
    return bool(getattr(view, "swagger_fake_view", False))


def unknown_word(kind: str, name: str, known: list[str]) -> str:
    """Return a sentence about a word that is not known, with the nearest known one."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {kind} {name!r}; {hint}"


def path_of(request: HttpRequest | Request, *parts: object) -> str:
    """Return the path of another thing under the mount through which this request came."""
    mount = "/api/v1" if request.path.startswith("/api/v1/") else ""
    return "/".join([mount, *map(str, parts)])
