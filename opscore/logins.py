"""Logging in: how often it may fail, for one account from one address and for an address."""

from __future__ import annotations

import math
import unicodedata
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in
from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.crypto import salted_hmac
from django.utils.deprecation import MiddlewareMixin

from opscore import origin
from opscore.api.auth import LOGINLESS
from opscore.audit.record import Actor, note, refusal_is_noted
from opscore.config import load_config
from opscore.database import database_now, query
from opscore.models import LoginAttempt
from opscore.origin import source_of

WINDOW = timedelta(minutes=15)
#: An office behind one address has more accounts, and more people who mistype.
_PER_ADDRESS = 5
_NO_PASSWORDS = "Nobody logs in with a password here (OPSCORE_PASSWORD_LOGIN)."
#: From as many times failures over all addresses, an account is asked slowly only. It is never
#: locked: whoever could lock it would keep its owner out.
_SLOW = 10
_SLOW_S = 5.0
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 7301))"


class LoginFirst(MiddlewareMixin):
    """Sends strangers to the login page, from whatever page is not on the list."""

    def process_view(self, request: HttpRequest, *_: Any) -> HttpResponseBase | None:
        """Let in who is logged in, and everybody to the pages of the list."""
        is_open = request.path in LOGINLESS or request.path.startswith("/static/")
        if is_open or request.user.is_authenticated:
            return None
        return redirect_to_login(request.get_full_path(), reverse("admin:login"))


class LoginGuard(MiddlewareMixin):
    """Answers 429 to logins from where too many have failed; asks before the password is."""

    def process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        """Count the attempt, and let it through or refuse it.

        Here the CSRF token was checked: a page elsewhere cannot use up the attempts of its visitor.
        """
        if request.method != "POST" or request.path != reverse("admin:login"):
            return None
        if not load_config().password_login:
            return HttpResponse(_NO_PASSWORDS, status=403, content_type="text/plain")
        wait_s = begin(request.POST.get("username", ""), origin.current().address)
        return _refused(wait_s) if wait_s else None


def begin(account: str, address: str | None) -> float:
    """Count an attempt as failed until it succeeds; return the seconds to wait, 0: go on.

    Counted before the password is looked at: a hundred attempts at once are counted too.
    """
    most = load_config().login_failures
    name, source = _digest(account), source_of(address)
    with transaction.atomic():
        # In this order everywhere, or two could wait for each other.
        query(_LOCK, {"name": name})
        query(_LOCK, {"name": source})
        now = database_now()
        recent = LoginAttempt.objects.filter(address=source, at__gt=now - WINDOW)
        waits = [
            _wait_s(recent.filter(account=name), most, now),
            _wait_s(recent, most * _PER_ADDRESS, now),
            _slow_s(name, most * _SLOW, now),
        ]
        if not any(waits):
            LoginAttempt.objects.create(account=name, address=source, at=now)
    return max(waits)


def _wait_s(attempts: Any, most: int, now: Any) -> float:
    """Return the seconds until fewer than `most` of the attempts are recent."""
    latest = list(attempts.order_by("-at").values_list("at", flat=True)[:most])
    return (latest[-1] + WINDOW - now).total_seconds() if len(latest) == most else 0.0


def _slow_s(name: str, most: int, now: Any) -> float:
    """Return the seconds until an account that is attacked from everywhere is asked again."""
    attempts = LoginAttempt.objects.filter(account=name, at__gt=now - WINDOW)
    latest = list(attempts.order_by("-at").values_list("at", flat=True)[:most])
    return max(_SLOW_S - (now - latest[0]).total_seconds(), 0.0) if len(latest) == most else 0.0


def _refused(wait_s: float) -> HttpResponse:
    if refusal_is_noted("login"):
        note("login.throttled", Actor(), status=429)
    seconds = max(1, math.ceil(wait_s))
    words = f"Too many logins have failed. Try again in {math.ceil(seconds / 60)} minutes."
    headers = {"Retry-After": str(seconds)}
    return HttpResponse(words, status=429, content_type="text/plain", headers=headers)


def _digest(account: str) -> str:
    # As the form reads it: another spelling of a name is the same account.
    name = unicodedata.normalize("NFKC", account.strip()).casefold()
    # A password that went into the wrong field must not be kept readable.
    return salted_hmac("opscore.logins", name, algorithm="sha256").hexdigest()


@receiver(user_logged_in)
def _forget_failures(user: Any, **_: Any) -> None:
    name = str(getattr(user, get_user_model().USERNAME_FIELD))
    source = source_of(origin.current().address)
    LoginAttempt.objects.filter(account=_digest(name), address=source).delete()
