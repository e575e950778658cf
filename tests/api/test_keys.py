"""API keys: made, checked, revoked; the command and the admin."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from agents import registry
from opscore import keys
from opscore.errors import InvalidError, NotFoundError, UnauthorizedError
from opscore.models import ApiKey

if TYPE_CHECKING:
    from opscore.models import Project


def test_key_is_stored_as_a_digest_only(project: Project) -> None:
    key, text = keys.create(project, "ci", ["read", "write"])
    row = ApiKey.objects.values().get(pk=key.pk)
    assert text.startswith(f"ok_{key.prefix}_")
    assert len(text.split("_", 2)[2]) >= 43
    assert text not in str(row)
    assert text.split("_", 2)[2] not in str(row)
    assert keys.verify(text).project == project


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + "x",
        lambda t: "ok_zz_" + t,
        lambda t: "",
        lambda t: "ok__",
        lambda t: "\ud800",
    ],
)
def test_wrong_key_is_refused(project: Project, change: Any) -> None:
    _, text = keys.create(project, "ci", ["read"])
    with pytest.raises(UnauthorizedError):
        keys.verify(change(text))


def test_expired_and_revoked_keys_are_refused_at_once(project: Project) -> None:
    key, text = keys.create(
        project, "old", ["read"], expires_at=timezone.now() - timedelta(seconds=1)
    )
    with pytest.raises(UnauthorizedError):
        keys.verify(text)
    key, text = keys.create(project, "new", ["read"])
    keys.verify(text)
    assert keys.revoke(project, key.prefix) == [key]
    with pytest.raises(UnauthorizedError):
        keys.verify(text)
    with pytest.raises(NotFoundError):
        keys.revoke(project, "nobody")


def test_last_use_is_written_at_most_once_a_minute(project: Project) -> None:
    key, text = keys.create(project, "ci", ["read"])
    keys.verify(text)
    first = ApiKey.objects.get(pk=key.pk).last_used_at
    assert first is not None
    keys.verify(text)
    assert ApiKey.objects.get(pk=key.pk).last_used_at == first
    ApiKey.objects.filter(pk=key.pk).update(last_used_at=first - timedelta(minutes=2))
    keys.verify(text)
    latest = ApiKey.objects.get(pk=key.pk).last_used_at
    assert latest is not None
    assert latest >= first


def test_scopes_are_checked(project: Project) -> None:
    with pytest.raises(InvalidError, match="Scopes are"):
        keys.create(project, "ci", ["root"])
    with pytest.raises(InvalidError):
        keys.create(project, "ci", [])
    assert keys.allows(ApiKey(scopes=["admin"]), "agent")
    assert not keys.allows(ApiKey(scopes=["read"]), "write")


def test_command_makes_lists_and_revokes(project: Project) -> None:
    text = _call("create", "laptop", "--scopes", "read, agent", "--expires-days", "2").strip()
    key = keys.verify(text)
    assert key.scopes == ["agent", "read"]
    assert key.expires_at is not None
    listed = _call("list")
    assert "laptop" in listed
    assert text not in listed
    assert key.prefix in _call("revoke", "laptop")
    assert "revoked" in _call("list")
    with pytest.raises(CommandError, match="no API key"):
        _call("revoke", "nobody")
    with pytest.raises(CommandError, match="Scopes are"):
        _call("create", "x", "--scopes", "root")
    with pytest.raises(CommandError, match="1 to 100 characters"):
        _call("create", "x" * 101)
    for days in ("nan", "inf", "1e12", "0"):
        with pytest.raises(CommandError, match="a number above 0, at most"):
            _call("create", "x", "--expires-days", days)
    with pytest.raises(CommandError, match="no project"):
        call_command("apikey", "--project", "other", "list")


def test_command_binds_a_key_to_an_agent_and_rotates_it(project: Project) -> None:
    agent, _ = registry.register(project, name="ada", kind="remote", capabilities=["echo"])
    key = keys.verify(_call("create", "own", "--agent", "ada").strip())
    assert (key.agent_id, key.scopes) == (agent.pk, ["agent"])
    assert "only as ada" in _call("list")
    turned = keys.verify(_call("rotate", "own", "--overlap-s", "0").strip())
    assert turned.agent_id == agent.pk
    assert not keys.is_usable(ApiKey.objects.get(pk=key.pk))
    with pytest.raises(CommandError, match="no agent 'nobody'"):
        _call("create", "own", "--agent", "nobody")
    with pytest.raises(CommandError, match="scope agent, and no other"):
        _call("create", "own", "--agent", "ada", "--scopes", "agent,write")
    with pytest.raises(CommandError, match="0 or more"):
        _call("rotate", "own", "--overlap-s", "nan")
    with pytest.raises(CommandError, match="works no more"):
        _call("rotate", key.prefix)


def _call(*arguments: str) -> str:
    out = StringIO()
    call_command("apikey", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()
