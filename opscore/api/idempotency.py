"""`Idempotency-Key`: a POST that is sent again gets the first answer, and is done once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar

from django.db import connection, transaction
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.auth import project_of
from opscore.config import load_config
from opscore.errors import ConflictError, InvalidError, OpsCoreError
from opscore.models import IdempotentAnswer

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT_HEADERS = ("Location",)

Method = TypeVar("Method", bound=Callable[..., Response])


class KeyInUseError(ConflictError):
    """A request with this Idempotency-Key is still running; ask again for its answer."""

    code = "idempotency_in_use"
    headers = {"Retry-After": "1"}


class KeyMismatchError(OpsCoreError):
    """This Idempotency-Key was used with another body; take a new key for a new request."""

    status = 422
    code = "idempotency_mismatch"


def idempotent(method: Method) -> Method:
    """Make a view's POST honour `Idempotency-Key`.

    What it creates and the answer that is kept commit in one transaction, so a crash leaves
    both or neither. Only a 2xx answer is kept: a refused or failed request frees its key.
    """

    @wraps(method)
    def once(view: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return method(view, request, *args, **kwargs)
        if not _KEY.fullmatch(key):
            raise InvalidError("Idempotency-Key must be 1 to 255 printable ASCII characters.")
        with transaction.atomic():
            return _once(request, key, lambda: method(view, request, *args, **kwargs))

    once.is_idempotent = True  # type: ignore[attr-defined]
    return once  # type: ignore[return-value]


def _once(request: Request, key: str, run: Callable[[], Response]) -> Response:
    project = project_of(request)
    target = _target(request)
    digest = _digest(request)
    if not _locked(f"{project.pk} {target} {key}"):
        raise KeyInUseError
    kept = IdempotentAnswer.objects.filter(project=project, key=key, target=target)
    kept.filter(created_at__lt=timezone.now() - _ttl()).delete()
    first = kept.first()
    if first is not None:
        return _replayed(first, digest)
    response = run()
    if response.status_code < 300:
        IdempotentAnswer.objects.create(
            project=project,
            key=key,
            target=target,
            body_digest=digest,
            status=response.status_code,
            answer=_kept(response),
        )
    return response


def _locked(name: str) -> bool:
    # Held until the transaction ends, by a crash too: no row is ever left "in progress".
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        row = cursor.fetchone()
    return bool(row and row[0])


def _replayed(first: IdempotentAnswer, digest: str) -> Response:
    if first.body_digest != digest:
        raise KeyMismatchError
    answer: dict[str, Any] = first.answer or {}
    headers = {**answer["headers"], "Idempotency-Replayed": "true"}
    return Response(answer["body"], status=first.status, headers=headers)


def _kept(response: Response) -> dict[str, Any]:
    headers = {name: response[name] for name in _KEPT_HEADERS if name in response}
    return {"body": json.loads(JSONRenderer().render(response.data) or b"null"), "headers": headers}


def _target(request: Request) -> str:
    """Return what was asked, in the 255 characters that are kept of it."""
    # /tasks and /api/v1/tasks are one thing, and so is a key that was used at either.
    path = request.path_info.removeprefix("/api/v1")
    query = request.META.get("QUERY_STRING", "")
    asked = f"?{hashlib.sha256(query.encode()).hexdigest()}" if query else ""
    return f"{request.method} {path}"[: 255 - len(asked)] + asked


def _digest(request: Request) -> str:
    kind = (request.content_type or "").partition(";")[0].strip().lower()
    body: bytes = request._request.body  # noqa: SLF001 - the bytes as they came
    return hashlib.sha256(kind.encode() + b"\n" + body).hexdigest()


def _ttl() -> timedelta:
    return timedelta(hours=load_config().idempotency_ttl_h)
