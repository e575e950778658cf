"""How the API describes itself in OpenAPI: the key, the error answers, one path for each thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.settings import spectacular_settings
from drf_spectacular.utils import Direction, OpenApiParameter
from rest_framework import serializers
from rest_framework.generics import ListAPIView

from opscore.api.auth import KEYLESS, scope_for
from opscore.api.etags import PATTERN
from opscore.api.problems import Failure

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    pattern="^[!-~]{1,255}$",
    description="A request sent again with the same key gets the first answer.",
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    str,
    OpenApiParameter.HEADER,
    pattern=f"^({PATTERN})$",
    description="The `ETag` of what you read: 412 when it was changed meanwhile.",
)


FIELDS = OpenApiParameter(
    "fields",
    str,
    description="Only these fields of the answer, as `id,status`; others cost nothing.",
)


def words_of(view: Any, method: str) -> list[OpenApiParameter]:
    """Return the words that a method of a view understands in the query; lists add their own."""
    own = list(getattr(view, "words", {}).get(method, ()))
    shows_fields = getattr(view, "shows", None) is not None
    return [FIELDS, *own] if shows_fields or (method == "GET" and _is_object(view)) else own


def _is_object(view: Any) -> bool:
    is_other = getattr(view, "is_stream", True)  # a view without the word is no endpoint
    return not is_other and not isinstance(view, ListAPIView)


#: One character that is no white space, as Python's `strip` understands it.
_NOT_BLANK = r"[^\s\x1c-\x1f\x85]"


def name_enum(name: str, words: Sequence[str]) -> None:
    """Give a list of words a name in the document; without one the generator numbers them."""
    spectacular_settings.ENUM_NAME_OVERRIDES[name] = [(word, word) for word in words]


def read_only(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Refuse all but GET and HEAD, as JSON: the views of the document would answer in HTML."""

    @wraps(view)
    def get_only(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method in {"GET", "HEAD"}:
            return view(request, *args, **kwargs)
        detail = f'Method "{request.method}" not allowed.'
        return Failure(405, detail, headers={"Allow": "GET, HEAD"}).respond()

    return get_only


class ProblemSerializer(serializers.Serializer[Any]):
    """One thing that is wrong."""

    message = serializers.CharField()
    path = serializers.CharField(required=False, help_text="As `tasks.review.needs[0]`.")
    line = serializers.IntegerField(required=False, help_text="1-based, of a definition's text.")
    file = serializers.CharField(
        required=False, help_text="Where several texts were sent together: the one it is in."
    )


class ErrorSerializer(serializers.Serializer[Any]):
    """The shape of every error answer (application/problem+json)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="A word for programs; it does not change.")
    detail = serializers.CharField(help_text="A sentence for people.")
    request_id = serializers.CharField()
    # DRF takes declared fields out of the class: its own `errors` stays what it is.
    errors = ProblemSerializer(many=True)  # type: ignore[assignment]


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Documents the Bearer key."""

    target_class = "opscore.api.auth.KeyAuthentication"
    name = "ApiKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        """Return the security scheme."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "ok_<prefix>_<secret>"}


class Schema(AutoSchema):
    """Documents each endpoint once, under /api/v1, with its errors and the scope it needs."""

    def is_excluded(self) -> bool:
        """Leave out the second mount at the root."""
        return not self.path.startswith("/api/v1/")

    def get_operation_id(self) -> str:
        """Name operations after their path, without the mount."""
        name: str = super().get_operation_id()
        return name.removeprefix("api_v1_")

    def get_tags(self) -> list[str]:
        """Group by the first word of the path; what executors call is a group of its own."""
        words = self.path.removeprefix("/api/v1/").split("/")
        return ["executors" if "agent" in getattr(self.view, "scopes", {}).values() else words[0]]

    def get_auth(self) -> list[dict[str, Any]]:
        """Say that the exact list of keyless paths needs none."""
        super().get_auth()  # it adds the scheme to the document
        return [] if self.path in KEYLESS else [{"ApiKey": []}]

    def get_description(self) -> str:  # type: ignore[override] # DRF's own schemas differ
        """Add the scope to the docstring."""
        text = str(super().get_description() or "")
        if self.method.lower() not in vars(type(self.view)):
            # What a method does for every list says nothing of what is in this one.
            text = f"{type(self.view).__doc__}\n\n{text}"
        if self.path in KEYLESS:
            return text
        return (
            f"{text}\n\nNeeds a key with the scope `{scope_for(self.view, self.method)}`.".strip()
        )

    def get_override_parameters(self) -> list[Any]:
        """Add the headers that every method of the kind honours, and the words of the query."""
        edits = self.method in {"PUT", "PATCH", "DELETE"} and getattr(self.view, "is_edited", False)
        headers = [IDEMPOTENCY_KEY] if self.method == "POST" else [IF_MATCH] if edits else []
        return [*headers, *words_of(self.view, self.method)]

    def _get_filter_parameters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = super()._get_filter_parameters()  # type: ignore[no-untyped-call]
        for parameter in found:
            if parameter["schema"].get("type") == "array":
                parameter["schema"]["minItems"] = 1
        return found

    def _map_serializer_field(
        self, field: Any, direction: Direction, bypass_extensions: bool = False
    ) -> Any:
        found: Any = super()._map_serializer_field(  # type: ignore[no-untyped-call]
            field, direction, bypass_extensions
        )
        if {} in (found or {}).get("oneOf", ()):
            # "Anything, or null" would be both for null, and `oneOf` is exactly one.
            del found["oneOf"]
        return found

    def _map_basic_serializer(self, serializer: Any, direction: Direction) -> Any:
        found: Any = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if _is_strict(serializer):
            found["additionalProperties"] = False
        return found

    def _get_serializer_field_meta(self, field: Any, direction: Direction) -> Any:
        meta: Any = super()._get_serializer_field_meta(field, direction)  # type: ignore[no-untyped-call]
        refuses_blank = isinstance(field, serializers.CharField) and not field.allow_blank
        if refuses_blank and _is_strict(_owner(field)):
            meta["pattern"] = _NOT_BLANK
        return meta

    def _get_response_bodies(self, direction: Direction = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        failure = self._get_response_for_code(  # type: ignore[no-untyped-call]
            ErrorSerializer, "default", media_types=["application/problem+json"]
        )
        return {**bodies, "default": {**failure, "description": "Every error has this shape."}}


def _is_strict(serializer: Any) -> bool:
    return bool(getattr(serializer, "is_strict", False))


def _owner(field: serializers.Field[Any, Any, Any, Any]) -> Any:
    """Return the serializer that a field, or the list around it, belongs to."""
    owner = field.parent
    return owner.parent if isinstance(owner, serializers.ListField) else owner
