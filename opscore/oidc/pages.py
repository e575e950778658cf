"""To the provider and back: state, nonce and PKCE travel in a signed cookie, not in a row."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse
from django.utils.http import url_has_allowed_host_and_scheme

from opscore.audit.record import Actor, note, refusal_is_noted
from opscore.config import Config, load_config
from opscore.oidc.people import admit
from opscore.oidc.provider import LoginRefusedError, Provider, ProviderAwayError

_COOKIE = "opscore_oidc"
_SALT = "opscore.oidc"
#: Strangers begin log-ins: a row for each would fill the table of sessions.
_LASTS_S = 600
_BACKEND = "django.contrib.auth.backends.ModelBackend"


def begin(request: HttpRequest) -> HttpResponse:
    """Send a browser to the provider; `next` is the page to come back to."""
    config = _switched_on(request)
    attempt = {name: secrets.token_urlsafe(32) for name in ("state", "nonce", "verifier")}
    try:
        target = Provider(config).address("authorization_endpoint")
    except ProviderAwayError as error:
        return _refusal(request, str(error), 503)
    digest = hashlib.sha256(attempt["verifier"].encode()).digest()
    query = {
        "response_type": "code",
        "client_id": config.oidc_client_id,
        "redirect_uri": _here(request),
        "scope": config.oidc_scopes,
        "state": attempt["state"],
        "nonce": attempt["nonce"],
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    answer = HttpResponseRedirect(f"{target}{'&' if '?' in target else '?'}{urlencode(query)}")
    answer.set_cookie(
        _COOKIE,
        signing.dumps({**attempt, "next": _safe(request, request.GET.get("next", ""))}, salt=_SALT),
        max_age=_LASTS_S,
        path=reverse("oidc-begin").rpartition("/")[0],
        httponly=True,
        secure=bool(settings.SESSION_COOKIE_SECURE),
        samesite="Lax",
    )
    return answer


def callback(request: HttpRequest) -> HttpResponse:
    """Let in whom the provider sends back, if all of it belongs to a log-in of this browser."""
    config = _switched_on(request)
    try:
        attempt = _attempt(request)
        user = _person(request, config, attempt)
    except LoginRefusedError as error:
        answer = _refusal(request, str(error), 403)
    except ProviderAwayError as error:
        answer = _refusal(request, str(error), 503)
    else:
        user.login_by = config.oidc_issuer  # type: ignore[attr-defined]
        login(request, user, backend=_BACKEND)
        answer = HttpResponseRedirect(_safe(request, attempt["next"]))
    answer.delete_cookie(_COOKIE, path=reverse("oidc-begin").rpartition("/")[0])
    return answer


def offered(request: HttpRequest) -> dict[str, Any]:
    """Tell the log-in page which ways there are (a context processor)."""
    config = load_config()
    target = urlencode({"next": request.GET.get("next", "")})
    return {
        "password_login": config.password_login,
        "single_sign_on": config.oidc_name if config.oidc_issuer else "",
        "single_sign_on_url": f"{reverse('oidc-begin')}?{target}",
    }


def _person(request: HttpRequest, config: Config, attempt: dict[str, str]) -> User:
    words = request.GET
    if not hmac.compare_digest(words.get("state", "").encode(), attempt["state"].encode()):
        raise LoginRefusedError("This answer belongs to another log-in. Begin again.")
    if words.get("iss", config.oidc_issuer) != config.oidc_issuer:
        raise LoginRefusedError("This answer is from another provider.")
    if "error" in words:
        raise LoginRefusedError(f"The provider refused: {words['error'][:80]}")
    provider = Provider(config)
    tokens = provider.exchange(words.get("code", ""), attempt["verifier"], _here(request))
    return admit(config, provider.claims(tokens, attempt["nonce"]))


def _attempt(request: HttpRequest) -> dict[str, str]:
    try:
        found: dict[str, str] = signing.loads(
            request.COOKIES.get(_COOKIE, ""), salt=_SALT, max_age=_LASTS_S
        )
    except signing.BadSignature:
        raise LoginRefusedError(
            "This log-in was not begun in this browser, or took longer than ten minutes."
        ) from None
    return found


def _switched_on(request: HttpRequest) -> Config:
    config = load_config()
    if not config.oidc_issuer or request.method != "GET":
        raise Http404("There is no such page.")
    return config


def _here(request: HttpRequest) -> str:
    return request.build_absolute_uri(reverse("oidc-callback"))


def _safe(request: HttpRequest, target: str) -> str:
    own = url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure())
    return target if own else reverse("admin:index")


def _refusal(request: HttpRequest, words: str, status: int) -> HttpResponse:
    if refusal_is_noted("login"):
        issuer = load_config().oidc_issuer
        note("login.refused", Actor(), status=status, data={"by": issuer, "reason": words})
    context = {**admin.site.each_context(request), "title": "Not logged in", "words": words}
    return render(request, "oidc/refused.html", context, status=status)


urlpatterns = [
    path("admin/oidc/login", begin, name="oidc-begin"),
    path("admin/oidc/callback", callback, name="oidc-callback"),
]
