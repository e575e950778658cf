"""From what the provider says of a person to a user here, his roles and his projects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import Group, User
from django.db import transaction

from opscore.config import Config, granted
from opscore.database import query
from opscore.logs import get_logger
from opscore.models import Membership, OidcIdentity, Project
from opscore.oidc.provider import LoginRefusedError
from opscore.roles import ROLES
from opscore.texts import storable

log = get_logger(__name__)

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 7302))"
_LONGEST_NAME = 150


def admit(config: Config, claims: dict[str, Any]) -> User:
    """Return the user of a person, with the roles and projects of today.

    A person without a role loses those he had. Raises LoginRefusedError.
    """
    groups = _groups(claims.get(config.oidc_claim))
    roles = _given(config.oidc_roles, groups) & set(ROLES)
    with transaction.atomic():
        query(_LOCK, {"name": f"{config.oidc_issuer} {claims['sub']}"})
        user = _known(config, claims) or (_made(config, claims) if roles else None)
        if user is not None:
            _describe(user, claims, is_staff=bool(roles))
            _give(user, roles)
            if config.oidc_projects:
                _place(user, _given(config.oidc_projects, groups) if roles else set())
    if user is None or not roles:
        raise LoginRefusedError(
            "You are known, but none of your groups has a role in Ops-Core. "
            "Ask whoever runs it for one."
        )
    if not user.is_active:
        raise LoginRefusedError("This account is switched off in Ops-Core.")
    return user


def _groups(claim: Any) -> set[str]:
    words = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return {word for word in words if isinstance(word, str)}


def _given(text: str, groups: Iterable[str]) -> set[str]:
    """Return what a mapping gives to groups; `*` is everybody."""
    mapping = granted(text)
    return {word for group in {*groups, "*"} for word in mapping.get(group, [])}


def _known(config: Config, claims: dict[str, Any]) -> User | None:
    # Never by name or address: whoever may choose those at the provider could become anybody.
    rows = OidcIdentity.objects.filter(issuer=config.oidc_issuer, subject=claims["sub"])
    found = rows.select_related("user").first()
    return found.user if found else None


def _made(config: Config, claims: dict[str, Any]) -> User:
    user = User.objects.create_user(_free_name(config, claims))
    OidcIdentity.objects.create(user=user, issuer=config.oidc_issuer, subject=claims["sub"])
    return user


def _free_name(config: Config, claims: dict[str, Any]) -> str:
    words = (claims.get(name) for name in ("preferred_username", "email", "sub"))
    wished = next(word for word in words if isinstance(word, str) and word)
    name = re.sub(r"[^\w.@+-]", "_", wished)[: _LONGEST_NAME - 9]
    if not User.objects.filter(username=name).exists():
        return name
    tail = hashlib.sha256(f"{config.oidc_issuer} {claims['sub']}".encode()).hexdigest()[:8]
    return f"{name}-{tail}"


def _describe(user: User, claims: dict[str, Any], *, is_staff: bool) -> None:
    user.is_staff = is_staff
    for name, claim in (("first_name", "given_name"), ("last_name", "family_name")):
        setattr(user, name, str(storable(claims.get(claim) or ""))[:_LONGEST_NAME])
    email = claims.get("email")
    if isinstance(email, str) and claims.get("email_verified") is not False:
        user.email = storable(email)[:254]
    user.save()


def _give(user: User, roles: set[str]) -> None:
    user.groups.remove(*Group.objects.filter(name__in=set(ROLES) - roles))
    user.groups.add(*Group.objects.filter(name__in=roles))


def _place(user: User, slugs: set[str]) -> None:
    projects = list(Project.objects.filter(slug__in=slugs))
    if missing := slugs - {project.slug for project in projects}:
        log.warning("no such projects", setting="OPSCORE_OIDC_PROJECTS", projects=sorted(missing))
    Membership.objects.filter(user=user).exclude(project__in=projects).delete()
    for project in projects:
        Membership.objects.get_or_create(user=user, project=project)
