"""What all endpoints share: strict input, the project of the key, lists with filters."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from django.http import HttpRequest
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from opscore.api import etags, idempotency
from opscore.api.auth import is_executors, key_of, project_of
from opscore.api.pages import BY_AGE
from opscore.api.parsers import StrictJSON
from opscore.api.schema import Schema, words_of
from opscore.api.shown import Shown, shown_by
from opscore.api.strict import refuse_other_types
from opscore.audit.calls import Recorded
from opscore.errors import InvalidError, Problem
from opscore.models import Project

S = TypeVar("S", bound=serializers.Serializer[Any])
_PAGING = frozenset({"after", "limit", "ordering", "fields"})
#: Unknown fields that an error names, and letters of each name that it shows.
_NAMED = 20
_LONGEST_NAME = 80
_EDITS = frozenset({"put", "patch", "delete"})
_READS = frozenset({"get", "head", "options"})
_checkers = threading.local()
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
        wrong = _unknown_fields(data, list(self.fields))
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if not isinstance(error.detail, dict):
                raise
            raise serializers.ValidationError({**wrong, **error.detail}) from None
        if wrong:
            raise serializers.ValidationError(wrong)
        return value


def _unknown_fields(data: Any, known: list[str]) -> dict[str, Any]:
    """Return what to say about unknown fields: the first few by name, the others by number."""
    names = data if isinstance(data, Mapping) else ()
    unknown = [str(name) for name in names if name not in known]
    wrong = {_shown(name): [unknown_word("field", name, known)] for name in unknown[:_NAMED]}
    if len(unknown) > _NAMED:
        wrong["non_field_errors"] = [f"and {len(unknown) - _NAMED} more unknown fields"]
    return wrong


def _shown(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


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
            name: _wrong_values(filters.get(name), values)
            if name in known
            else unknown_word("parameter", name, known)
            for name, values in request.query_params.lists()
        }
        problems = [Problem(message, name) for name, message in wrong.items() if message]
        if problems:
            raise InvalidError("The list cannot be filtered like that.", problems)
        if request.query_params.keys().isdisjoint(filters):
            return queryset  # the form alone would cost as much as the query
        return super().filter_queryset(request, queryset, view)


def _wrong_values(parameter: django_filters.Filter | None, values: list[str]) -> str:
    # Only the last one would count.
    return "stands more than once" if len(values) > 1 else _overlooked(parameter, values[0])


def _overlooked(parameter: django_filters.Filter | None, value: str) -> str:
    """Say what is wrong with a value that the filter itself would take for none; '': nothing."""
    if isinstance(parameter, django_filters.BooleanFilter):
        return "" if value.lower() in {"true", "false"} else "must be true or false"
    if isinstance(parameter, django_filters.NumberFilter):
        return "" if _WHOLE.fullmatch(value) else "must be a whole number"
    is_text = parameter is None or isinstance(parameter, django_filters.CharFilter)
    return "" if is_text or value else "must not be empty"


class Endpoint(Recorded, APIView):
    """A view of the API; `scopes` names the scope of a method where it is not the usual one."""

    scopes: ClassVar[Mapping[str, str]] = {}
    session_methods: ClassVar[tuple[str, ...]] = ()
    """Methods for keys of one session or one agent, which they hold to its own work."""
    parser_classes = [StrictJSON]
    content_negotiation_class = AlwaysJSON
    schema = Schema()

    #: Whether what it is sent must stand in no record.
    is_confidential: ClassVar[bool] = False
    #: Whether its answers may hold secrets: what an `Idempotency-Key` keeps is encrypted then.
    answers_secrets: ClassVar[bool] = False
    #: What it answers with. Then each of its methods honours `fields`, and makes no other ones.
    shows: ClassVar[Shown | None] = None
    #: What a method understands in its query beside `fields`; anything else there is refused.
    words: ClassVar[Mapping[str, Sequence[OpenApiParameter]]] = {}
    #: Whether it answers with a stream of events, which has no fields.
    is_stream: ClassVar[bool] = False
    #: Whether probes call it: whatever their addresses carry, they must learn what they ask.
    is_probed: ClassVar[bool] = False
    #: The fields that were asked for; none: all.
    only: frozenset[str] = frozenset()
    #: Whether PUT, PATCH and DELETE of what it shows can clash: then it says so by `edited`.
    is_edited: ClassVar[bool] = False
    #: What `edited` said of what this request shows; None: nothing.
    edited_now: Any = None

    def edited(self, **kwargs: Any) -> Any:
        """Return what edits change, given the words of the path; None: there is nothing yet."""
        raise NotImplementedError

    def secrets(self, response: Response) -> Mapping[str, Any]:
        """Return what the answer of a POST shows beside what an `Idempotency-Key` may keep."""
        return {}

    def perform_authentication(self, request: Request) -> None:
        """Ask for the key, and count the request before its scope is: a refused one counts too."""
        super().perform_authentication(request)
        self.check_throttles(request)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the key and the body; then honour `Idempotency-Key` or `If-Match`."""
        super().initial(request, *args, **kwargs)
        name = (request.method or "").lower()
        method = getattr(self, name, None)
        if method is None:  # a 405, whatever else came with it
            return
        if request.GET and name != "options":
            self._check_words(request)
        if self.shows is not None:
            self.only = frozenset(_wanted_fields(request))
            _check_fields(self.only, self.shows.fields)
        if name not in _READS and not is_executors(self, name.upper(), None):
            # Refused before anything is done, also by methods that make no use of a body.
            _ = request.data
        once = request.headers.get("Idempotency-Key") if name == "post" else None
        if once is not None:
            whole, sealed = self._whole(method), self.answers_secrets
            self.post = idempotency.once(whole, request, once, is_sealed=sealed)
        else:
            self._honour_conditions(request, name, method)

    def _whole(self, method: Callable[..., Response]) -> Callable[..., Response]:
        """Have a method answer with all fields: who sends it again may ask for others."""

        def post(*args: Any, **kwargs: Any) -> Response:
            wanted, self.only = self.only, frozenset()
            try:
                return method(*args, **kwargs)
            finally:
                self.only = wanted

        return post

    def _honour_conditions(
        self, request: Request, name: str, method: Callable[..., Response]
    ) -> None:
        if self.is_edited and name in _EDITS:
            setattr(self, name, etags.guarded(method, request, self))
        elif self.is_edited and name in {"get", "head"}:
            # Before it is read: a tag may be older than what it names, never younger.
            self.edited_now = etags.edited_of(self, self.kwargs)
        elif name in _EDITS:
            etags.refuse(request)

    def _check_words(self, request: Request) -> None:
        """Refuse what the query says beyond what this method understands; a list does it itself."""
        method = "GET" if _reads(request) else request.method or ""
        if self.is_probed or (method == "GET" and isinstance(self, Listing)):
            return
        known = sorted(word.name for word in words_of(self, method))
        problems = [
            Problem(
                "stands more than once"
                if name in known
                else unknown_word("parameter", name, known),
                name,
            )
            for name, values in request.GET.lists()
            if name not in known or len(values) > 1
        ]
        if problems:
            raise InvalidError("The query is not understood.", problems)

    @property
    def project(self) -> Project:
        """The namespace of the key that was sent."""
        return project_of(self.request)

    @property
    def own_session(self) -> UUID | None:
        """The only session that the key may act for; None: it is not bound to one."""
        return key_of(self.request).session_id

    @property
    def own_agent(self) -> UUID | None:
        """The only agent that the key may act as; None: it is not bound to one."""
        return key_of(self.request).agent_id

    @property
    def actor(self) -> str:
        """Who does it, for events and logs: the key's name."""
        return str(self.request.user)

    def checked(self, serializer_class: type[S]) -> dict[str, Any]:
        """Return the body, validated; an empty body counts as {}. Raises ValidationError."""
        body = self.request.data
        empty = not self.request._request.body  # noqa: SLF001 - "was anything sent at all"
        data: dict[str, Any] = _checker(serializer_class).run_validation({} if empty else body)
        return data

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Give one object its tag, and only the fields that are asked for. Raises InvalidError."""
        response = super().finalize_response(request, response, *args, **kwargs)
        if response.status_code < 300 and isinstance(response.data, Mapping):
            response.data = pruned(response.data, self.only)
        if request.method == "POST" and response.status_code < 300:
            response.data = _joined(response.data, self.secrets(response))
        elif response.status_code == 200 and not isinstance(self, Listing):
            self._finish(request, response)
        return response

    def _finish(self, request: Request, response: Any) -> None:
        wanted = _wanted_fields(request) if _reads(request) else set()
        if wanted and self.shows is None:
            _check_fields(wanted, list(response.data))
            response.data = pruned(response.data, wanted)
        if not self.is_edited:
            if _reads(request):
                etags.tagged(response, request)
        elif self.edited_now is not None:
            etags.tagged(response, request, self.edited_now)


class Listing(Endpoint, ListAPIView[Any]):
    """A list with filters and pages; `newest` gives its rows for the key's project."""

    filter_backends = [KnownParameters]
    #: Word -> a column that is unique in the list and indexed; the first, falling, is the default.
    orderings: ClassVar[Mapping[str, str]] = BY_AGE

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

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Show one page, only the fields of its rows that `fields` names. Raises InvalidError."""
        shown = shown_by(self.serializer_class)  # type: ignore[arg-type] # every list has one
        wanted = _wanted_fields(request)
        _check_fields(wanted, shown.fields)
        rows = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        context = {"view": self, **self.context_of(rows)}
        return self.get_paginated_response(shown.rows(rows, wanted, **context))

    def context_of(self, rows: Sequence[Any]) -> Mapping[str, Any]:
        """Return what the serializer of a row wants to know of the whole page."""
        return {}

    def _model(self) -> Any:
        return self.serializer_class.Meta.model._default_manager  # type: ignore[union-attr]  # noqa: SLF001


def _reads(request: Request) -> bool:
    return request.method in {"GET", "HEAD"}


def _checker(serializer_class: type[S]) -> S:
    """Return this thread's own: one made anew costs more than its check, and keeps nothing."""
    made = vars(_checkers).setdefault("made", {})
    if serializer_class not in made:
        made[serializer_class] = serializer_class()
    found: S = made[serializer_class]
    return found


def _joined(shown: Any, more: Mapping[str, Any]) -> Any:
    return {**shown, **more} if more else shown


def _wanted_fields(request: Request | HttpRequest) -> set[str]:
    """Return the words of `?fields=`; none: all fields."""
    text = request.GET.get("fields", "")
    return {word.strip() for word in text.split(",")} - {""}


def pruned(shown: Mapping[str, Any], wanted: Collection[str]) -> Mapping[str, Any]:
    """Return the fields that are wanted; none named: all."""
    return {name: value for name, value in shown.items() if name in wanted} if wanted else shown


def _check_fields(wanted: Collection[str], known: list[str]) -> None:
    problems = [
        Problem(unknown_word("field", word, known), "fields")
        for word in sorted({*wanted} - {*known})
    ]
    if problems:
        raise InvalidError("There are no such fields.", problems)


def is_documenting(view: APIView) -> bool:
    """Tell whether the view was made by the generator of the OpenAPI document."""
    return bool(getattr(view, "swagger_fake_view", False))


def unknown_word(kind: str, name: str, known: list[str]) -> str:
    """Return a sentence about a word that is not known, with the nearest known one."""
    # An answer must not be as large as what was sent, nor cost as much as that to make.
    name = _shown(name)
    near = difflib.get_close_matches(name, known, n=1)
    others = f"known: {', '.join(known)}" if known else "none is known here"
    hint = f"did you mean {near[0]!r}?" if near else others
    return f"unknown {kind} {name!r}; {hint}"


def path_of(request: HttpRequest | Request, *parts: object) -> str:
    """Return the path of another thing under the mount through which this request came."""
    mount = "/api/v1" if request.path.startswith("/api/v1/") else ""
    return "/".join([mount, *map(str, parts)])
