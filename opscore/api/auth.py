"""Who may do what: an API key on every path, except an exact list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from opscore import attempt_tokens, keys, origin
from opscore.errors import ForbiddenError, TooManyRequestsError, UnauthorizedError
from opscore.models import ApiKey, Project
from opscore.quotas import Quota

if TYPE_CHECKING:
    # DRF's views import this module through its settings.
    from rest_framework.views import APIView

#: The only paths that need no key. A test walks every URL and method against this list.
KEYLESS = frozenset(
    {
        "/health",
        "/ready",
        "/api/v1/health",
        "/api/v1/ready",
        "/api/v1/schema",
        "/api/v1/docs",
        "/api/v1/redoc",
    }
)
#: The only pages that need nobody to be logged in, beside the files below /static/.
LOGINLESS = frozenset({"/", "/admin/login/", "/admin/oidc/login", "/admin/oidc/callback"})
#: Keys that are not valid, from one source in a minute; each costs a statement.
wrong_keys = Quota(600)
#: Scope for each method where a view does not say otherwise; methods not named need `write`.
_DEFAULT: Mapping[str, str] = {"GET": "read", "HEAD": "read", "OPTIONS": "read"}


class KeyHolder:
    """Whoever holds an API key; what DRF calls the user."""

    is_authenticated = True
    is_active = True
    pk = None

    def __init__(self, key: ApiKey) -> None:
        self.key = key

    def __str__(self) -> str:
        return self.key.name


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <key>`; 401 when it is missing and when it is wrong."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, ApiKey] | None:
        """Return the holder and the key; `request.auth.project` is the namespace."""
        if request.path_info in KEYLESS:
            return None
        text = _bearer(request)
        key = _verified(text)
        # The frame's log line names the key, the audit log whoever holds it.
        inner: HttpRequest = request._request  # noqa: SLF001 - DRF's name for Django's request
        inner.key_name = key.name  # type: ignore[attr-defined]
        inner.api_key = key  # type: ignore[attr-defined]
        return KeyHolder(key), key


def _verified(text: str) -> ApiKey:
    """Return the key; whoever guesses them is answered without the database after a while."""
    source = origin.source_of(origin.current().address)
    # Who shares the address of somebody that guesses shall not suffer for it.
    if wrong_keys.is_spent(source) and not keys.was_good(text):
        raise TooManyRequestsError("Too many keys from this address were not valid", 60)
    try:
        is_attempts = text.startswith(attempt_tokens.PREFIX)
        return attempt_tokens.verify(text) if is_attempts else keys.verify(text)
    except UnauthorizedError:
        wrong_keys.takes(source)
        raise


class HasScope(BasePermission):
    """The key has the scope that `view.scopes` names for the method (default: read or write)."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Raise ForbiddenError naming the scope that is missing."""
        if request.path_info in KEYLESS:
            return True
        key, method = key_of(request), request.method or ""
        if key.session_id is not None or key.agent_id is not None:
            # Whatever its scopes: these methods hold it to its own work, others would not.
            if method not in getattr(view, "session_methods", ()):
                raise ForbiddenError(f"The key {key.name!r} is for the work of its own agent only.")
            return True
        scope = scope_for(view, method)
        if not any(keys.allows(key, word) for word in scope.split(" or ")):
            raise ForbiddenError(
                f"This needs the scope {scope!r}; the key {key.name!r} has {', '.join(key.scopes)}."
            )
        return True


def scope_for(view: APIView | type[APIView], method: str) -> str:
    """Return the scope that a method of a view needs; `read or agent`: one of these is enough."""
    own: Mapping[str, str] = getattr(view, "scopes", {})
    return own.get(method) or _DEFAULT.get(method, "write")


def is_executors(view: APIView, method: str, key: ApiKey | None) -> bool:
    """Tell whether a call belongs to the executor protocol, by what it is or by who sends it."""
    executors = {"agent", attempt_tokens.SCOPE}
    words = set(scope_for(view, method).split(" or "))
    return words <= executors or (key is not None and set(key.scopes) <= executors)


def key_of(request: Request) -> ApiKey:
    """Return the key that came with a request. Raises UnauthorizedError."""
    if not isinstance(request.auth, ApiKey):
        raise UnauthorizedError
    return request.auth


def project_of(request: Request) -> Project:
    """Return the namespace of the key that came with a request. Raises UnauthorizedError."""
    return key_of(request).project


def _bearer(request: Request) -> str:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise UnauthorizedError
    return text.strip()
