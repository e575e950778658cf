"""`Idempotency-Key`: a POST that is sent again gets the first answer, and is done once.

`opscore.api.endpoint` wraps every POST whose request has the header; others cost nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.auth import key_of, project_of
from opscore.config import load_config
from opscore.errors import ConflictError, InvalidError, OpsCoreError
from opscore.models import IdempotentAnswer
from opscore.sealing import seal, unseal

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT_HEADERS = ("Location",)
#: Header of an answer that was given before: nothing was done this time.
REPLAYED = "Idempotency-Replayed"


class KeyInUseError(ConflictError):
    """A request with this Idempotency-Key is still running; ask again for its answer."""

    code = "idempotency_in_use"
    headers = {"Retry-After": "1"}


class KeyMismatchError(OpsCoreError):
    """This Idempotency-Key was used with another body; take a new key for a new request."""

    status = 422
    code = "idempotency_mismatch"


def once(
    method: Callable[..., Response], request: Request, key: str, *, is_sealed: bool
) -> Callable[..., Response]:
    """Wrap the POST of a view so that it is done once for its `Idempotency-Key`.

    What it creates and the answer that is kept commit in one transaction, so a crash leaves
    both or neither. Only a 2xx answer is kept: a refused or failed request frees its key.
    `is_sealed`: its answer may hold secrets, so it is kept encrypted.
    """

    def post(*args: Any, **kwargs: Any) -> Response:
        if not _KEY.fullmatch(key):
            raise InvalidError("Idempotency-Key must be 1 to 255 printable ASCII characters.")
        with transaction.atomic():
            try:
                return _once(request, key, lambda: method(*args, **kwargs), is_sealed)
            except (OpsCoreError, APIException) as error:
                if _status_of(error) >= 500:
                    raise
                refusal = error
        # What it wrote about the refusal stays, as it does without the header.
        raise refusal

    return post


def _status_of(error: OpsCoreError | APIException) -> int:
    return error.status if isinstance(error, OpsCoreError) else error.status_code


def _once(request: Request, key: str, run: Callable[[], Response], is_sealed: bool) -> Response:
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
    # Who still waits has no answer yet: see `opscore.api.waiting`.
    if response.status_code < 300 and not hasattr(response, "patience"):
        IdempotentAnswer.objects.create(
            project=project,
            key=key,
            target=target,
            body_digest=digest,
            status=response.status_code,
            answer=_kept(response, is_sealed),
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
    headers = {**answer["headers"], REPLAYED: "true"}
    sealed = answer.get("sealed")
    body = json.loads(unseal(sealed.encode())) if sealed else answer["body"]
    return Response(body, status=first.status, headers=headers)


def _kept(response: Response, is_sealed: bool) -> dict[str, Any]:
    headers = {name: response[name] for name in _KEPT_HEADERS if name in response}
    text = JSONRenderer().render(response.data).decode() or "null"
    body = {"sealed": seal(text).decode()} if is_sealed else {"body": json.loads(text)}
    return {**body, "headers": headers}


def _target(request: Request) -> str:
    """Return what was asked, in the 255 characters that are kept of it."""
    # /tasks and /api/v1/tasks are one thing, and so is a key that was used at either.
    path = request.path_info.removeprefix("/api/v1")
    # How long the client would wait, and what it is shown, change nothing about what is done.
    pairs = request.META.get("QUERY_STRING", "").split("&")
    query = "&".join(pair for pair in pairs if not pair.startswith(("wait=", "fields=")))
    asked = f"?{hashlib.sha256(query.encode()).hexdigest()}" if query else ""
    # A bound key must not be given the answer that was given to another agent.
    sender = key_of(request)
    bound = sender.agent_id or sender.session_id
    asked += f" as {bound}" if bound else ""
    return f"{request.method} {path}"[: 255 - len(asked)] + asked


def _digest(request: Request) -> str:
    kind = (request.content_type or "").partition(";")[0].strip().lower()
    body: bytes = request._request.body  # noqa: SLF001 - the bytes as they came
    return hashlib.sha256(kind.encode() + b"\n" + body).hexdigest()


def _ttl() -> timedelta:
    return timedelta(hours=load_config().idempotency_ttl_h)
