"""What people do in the admin: changes, refusals, logins."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from opscore import origin
from opscore.audit.record import Actor, note, refusal_is_noted
from opscore.models import Project

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Rows of a selection that are named.
_NAMED = 100
#: Logins have rows of their own, that say more.
_APART = frozenset({"admin:login", "admin:logout"})


class PageAudit(MiddlewareMixin):
    """Records each request to a page that changed something or was refused."""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Write the row."""
        if request.method not in _READS and not _is_apart(request):
            _note(request, response.status_code)
        return response


def _is_apart(request: HttpRequest) -> bool:
    match = request.resolver_match
    return match is not None and match.view_name in _APART


def _note(request: HttpRequest, status: int) -> None:
    user = getattr(request, "user", None)
    known = user is not None and user.is_authenticated
    if not known and 300 <= status < 400:
        # Sent to the login page.
        status = 401
    changes = origin.current().changes
    if status in {401, 403, 404}:
        if not refusal_is_noted("page", _person(user).name):
            return
    elif not (changes or 300 <= status < 400):
        # A form that came back with its errors.
        return
    match = request.resolver_match
    action = f"{request.method} {match.view_name if match else 'nowhere'}"
    projects = [Project(pk=pk) for pk in sorted(origin.current().projects)]
    whole = projects if len(projects) == 1 else [None, *projects]
    for project in whole:
        # Each project learns of what concerns it, and not what was done to others with it.
        data = _told(request, changes) if known and project is whole[0] else {}
        note(
            action,
            _person(user),
            target=request.path_info,
            status=status,
            project=project,
            data=data,
        )


def _told(request: HttpRequest, changes: list[dict[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if action := request.POST.get("action"):
        data |= {"action": action, "rows": request.POST.getlist("_selected_action")[:_NAMED]}
    return data | ({"changes": changes} if changes else {})


def _person(user: Any) -> Actor:
    known = user is not None and user.is_authenticated
    return Actor(user.get_username(), "user") if known else Actor()


@receiver(post_save, sender=LogEntry)
def _note_entry(instance: LogEntry, **_: Any) -> None:
    said = {"object": instance.object_repr, "id": instance.object_id}
    origin.current().changes.append(said | {"message": instance.get_change_message()})


@receiver(user_logged_in)
def _note_login(user: Any, **_: Any) -> None:
    by = getattr(user, "login_by", "")
    note("login", _person(user), target=user.get_username(), data={"by": by} if by else {})


@receiver(user_logged_out)
def _note_logout(user: Any, **_: Any) -> None:
    if user is not None:
        note("logout", _person(user), target=user.get_username())


@receiver(user_login_failed)
def _note_failure(credentials: dict[str, Any], **_: Any) -> None:
    model = get_user_model()
    name = str(credentials.get(model.USERNAME_FIELD, ""))
    # A name that nobody has may be a password that went into the wrong field.
    known = "\0" not in name and model.objects.filter(**{model.USERNAME_FIELD: name}).exists()
    if refusal_is_noted("login"):
        note("login.failed", Actor(), target=name if known else "(unknown)", status=401)
