"""What people may do in the admin: three roles, which are groups, and projects they are members of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import AppConfig, apps
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.db.models import Q, QuerySet

from opscore.models import Membership, Project

ROLES = ("viewer", "operator", "admin")
_OURS = ("opscore", "agents", "tasks", "webhooks", "workflows")
#: What only admins look at: who has keys, who is who, who did what.
_CLOSED = frozenset(
    {
        "apikey",
        "auditentry",
        "audithead",
        "loginattempt",
        "membership",
        "oidcidentity",
        "oldsecret",
        "ratebucket",
        "sign",
    }
)
#: Models whose rows operators act on: change is the right to the actions of their pages.
_OPERATED = frozenset(
    {
        "agents.agent",
        "agents.breaker",
        "tasks.run",
        "tasks.task",
        "tasks.pause",
        "webhooks.delivery",
        "workflows.schedule",
    }
)
_PEOPLE = ("auth.add_user", "auth.change_user", "auth.view_user", "auth.view_group")


def projects_of(user: User | AnonymousUser) -> QuerySet[Project]:
    """Return the projects whose things a person sees; for a superuser all."""
    if user.is_superuser:
        return Project.objects.all()
    return Project.objects.filter(pk__in=Membership.objects.filter(user=user.pk).values("project"))


def may_manage(user: User | AnonymousUser, other: User) -> bool:
    """Tell whether one person may change another one.

    No superuser, nobody of a foreign project, nobody who may more than he does himself.

    Whoever sets somebody's password may log in as him, and so has whatever he has.
    """
    if user.is_superuser:
        return True
    foreign = Membership.objects.filter(user=other).exclude(project__in=projects_of(user))
    more = _rights_of(other).exclude(pk__in=_rights_of(user))
    return not other.is_superuser and not foreign.exists() and not more.exists()


def people_of(user: User | AnonymousUser) -> QuerySet[User]:
    """Return the people that somebody sees: of his projects, and those who are in none yet."""
    if user.is_superuser:
        return User.objects.all()
    near = Membership.objects.filter(project__in=projects_of(user)).values("user")
    return User.objects.filter(Q(membership=None) | Q(pk__in=near), is_superuser=False)


def groups_of(user: User | AnonymousUser) -> QuerySet[Group]:
    """Return the groups that somebody may put people into: none that may more than he does."""
    if user.is_superuser:
        return Group.objects.all()
    return Group.objects.exclude(
        permissions__in=Permission.objects.exclude(pk__in=_rights_of(user))
    )


def _rights_of(user: User | AnonymousUser) -> QuerySet[Permission]:
    # Not `get_all_permissions`: somebody who is not active has none, until he is made active.
    return Permission.objects.filter(Q(user=user.pk) | Q(group__user=user.pk))


def keep_roles(app_config: AppConfig, using: str, **_: Any) -> None:
    """Make the groups, and give them the rights on one app's models, no more and no less.

    Rights exist only once an app is migrated, so no migration can do it; other groups are left
    alone.
    """
    if app_config.label not in {*_OURS, "auth"}:
        return
    stock = {f"{p.content_type.app_label}.{p.codename}": p for p in _permissions(app_config, using)}
    for role in ROLES:
        group, _new = Group.objects.using(using).get_or_create(name=role)
        wanted = {stock[name] for name in _rights(role, app_config) if name in stock}
        has = set(group.permissions.filter(content_type__app_label=app_config.label))
        group.permissions.remove(*has - wanted)
        group.permissions.add(*wanted - has)


def _permissions(app_config: AppConfig, using: str) -> Iterable[Permission]:
    found = Permission.objects.using(using).select_related("content_type")
    return found.filter(content_type__app_label=app_config.label)


def _rights(role: str, app_config: AppConfig) -> Iterator[str]:
    label = app_config.label
    if label == "auth":
        yield from _PEOPLE if role == "admin" else ()
        return
    for model in apps.get_app_config(label).get_models():
        name = str(model._meta.model_name)  # noqa: SLF001 - Django's documented name
        if role == "admin":
            yield from (f"{label}.{verb}_{name}" for verb in ("view", "add", "change", "delete"))
        elif name not in _CLOSED:
            yield f"{label}.view_{name}"
            if role == "operator" and f"{label}.{name}" in _OPERATED:
                yield f"{label}.change_{name}"
