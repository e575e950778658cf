"""Webhooks by API: made, changed, tested, looked at; the secret is shown once and kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from opscore import keys, sealing
from opscore.models import AuditEntry, Event, IdempotentAnswer, Project
from tests.api.conftest import Api, act, api, make_api, people
from tests.webhooks.conftest import due_now
from webhooks import hooks, outbox
from webhooks.models import Delivery, Webhook

__all__ = ["api", "make_api", "people"]

pytestmark = pytest.mark.django_db

URL = "http://hooks.invalid/opscore"
WISH = {"name": "chat", "url": URL, "events": ["run.*", "task.failed"]}


@pytest.fixture
def hook(api: Api) -> dict[str, Any]:
    made = api("POST", "/webhooks", WISH)
    assert made.status_code == 201, made.content
    found: dict[str, Any] = made.json()
    return found


def claimed() -> list[outbox.Letter]:
    # `now()` of a test's transaction is older than whatever happened in it.
    due_now()
    return outbox.claim(100)


def fail(times: int = 1) -> None:
    for _ in range(times):
        for letter in claimed():
            outbox.record(letter, outbox.Answer(500, "HTTP 500", "sorry", 12))


def test_secret_is_shown_once_and_kept_nowhere(
    api: Api, caplog: pytest.LogCaptureFixture, project: Project
) -> None:
    made = api("POST", "/webhooks", WISH, Idempotency_Key="k")
    secret = made.json()["secret"]
    assert secret.startswith("whsec_")
    rotated = api("POST", "/webhooks/chat/rotate", {"overlap_s": 60}, Idempotency_Key="k")
    new = rotated.json()["secret"]
    assert new not in ("", None, secret)
    again = api("POST", "/webhooks", WISH, Idempotency_Key="k")
    assert (again.status_code, again.json()["secret"]) == (201, None)
    assert api("POST", "/webhooks/chat/test").status_code == 202
    delivery = Delivery.objects.get()
    shown = [
        api("GET", path).content.decode()
        for path in (
            "/webhooks",
            "/webhooks/chat",
            "/events",
            "/audit",
            f"/webhooks/chat/deliveries/{delivery.pk}",
        )
    ]
    kept = [str(row.data) + row.target for row in AuditEntry.objects.all()]
    kept += [str(row.answer) for row in IdempotentAnswer.objects.all()]
    kept += [str(row.data) for row in Event.objects.all()]
    assert len(kept) > 5
    row = Webhook.objects.get()
    for text in (secret, new):
        assert not [one for one in (*shown, *kept, caplog.text) if text in one]
        assert text.encode() not in bytes(row.sealed) + bytes(row.old_sealed or b"")
    assert sealing.unseal(bytes(row.sealed)) == new
    assert sealing.unseal(bytes(row.old_sealed or b"")) == secret
    assert rotated.json()["old_secret_until"] is not None


def test_lists_and_edits(api: Api, hook: dict[str, Any]) -> None:
    assert api("POST", "/webhooks", WISH).status_code == 409
    other = {"name": "all", "url": URL}
    assert api("POST", "/webhooks", other).json()["events"] == ["*"]
    names = [row["name"] for row in api("GET", "/webhooks?ordering=name").json()["results"]]
    assert names == ["all", "chat"]
    shown = api("GET", f"/webhooks/{hook['id']}")
    assert shown.json().items() >= {**WISH, "enabled": True, "workflow": ""}.items()
    changed = api("PATCH", "/webhooks/chat", {"events": ["*"]}, If_Match=shown["ETag"])
    assert (changed.status_code, changed.json()["events"]) == (200, ["*"])
    stale = api("PATCH", "/webhooks/chat", {"enabled": False}, If_Match=shown["ETag"])
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    off = api("PATCH", "/webhooks/chat", {"enabled": False}, If_Match=changed["ETag"])
    assert off.json()["enabled"] is False
    assert [row["name"] for row in api("GET", "/webhooks?enabled=false").json()["results"]] == [
        "chat"
    ]
    assert api("PATCH", "/webhooks/chat", {"name": "all"}).status_code == 409
    assert api("DELETE", "/webhooks/chat").status_code == 204
    assert api("DELETE", "/webhooks/chat").status_code == 404
    told = Event.objects.filter(kind__startswith="webhook.").order_by("id")
    assert [event.kind for event in told] == [
        "webhook.created",
        "webhook.created",
        "webhook.changed",
        "webhook.changed",
        "webhook.deleted",
    ]
    assert {event.actor for event in told} == {"test"}


@pytest.mark.parametrize(
    ("wrong", "path", "words"),
    [
        ({"events": ["runs.completed"]}, "events[0]", "did you mean run.completed?"),
        ({"events": ["run.*", "run"]}, "events[1]", "a kind as run.completed"),
        ({"events": []}, "events", "Ensure"),
        ({"events": ["%"]}, "events[0]", "a kind as run.completed"),
        ({"url": "ftp://x/"}, "url", "http://host/"),
        ({"url": "https://me:secret@x.example/"}, "url", "no name and password"),
        ({"url": "http://10.0.0.1/"}, "url", "not public"),
        ({"url": "http://2130706433/"}, "url", "not public"),
        ({"url": "http://0177.0.0.1/"}, "url", "not public"),
        ({"url": "http://[::ffff:10.0.0.1]/"}, "url", "not public"),
        ({"url": "http://169.254.169.254/latest"}, "url", "not public"),
        ({"name": " "}, "name", "blank"),
        ({"secret": "mine"}, "secret", "unknown field"),
    ],
)
def test_what_is_wrong_is_said(
    api: Api, hook: dict[str, Any], wrong: dict[str, Any], path: str, words: str
) -> None:
    for method, where in (("POST", "/webhooks"), ("PATCH", "/webhooks/chat")):
        answer = api(method, where, {**WISH, "name": "new", **wrong})
        assert answer.status_code == 400, answer.content
        found = {error["path"]: error["message"] for error in answer.json()["errors"]}
        assert words in found[path]
    assert Webhook.objects.count() == 1


def test_loopback_needs_to_be_allowed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from opscore.config import load_config

    wish = {**WISH, "url": "http://127.0.0.1:9/"}
    assert api("POST", "/webhooks", wish).status_code == 400
    monkeypatch.setattr(load_config(), "push_networks", "127.0.0.0/8")
    assert api("POST", "/webhooks", wish).status_code == 201


def test_log_of_deliveries(api: Api, hook: dict[str, Any], project: Project) -> None:
    for kind in ("task.failed", "run.completed", "agent.lost"):
        Event.objects.create(project=project, kind=kind, data={"message": "why"})
    fail()
    rows = api("GET", "/webhooks/chat/deliveries").json()["results"]
    assert [row["event"] for row in rows] == ["run.completed", "task.failed"]
    assert {(row["status"], row["last_status"], row["last_error"]) for row in rows} == {
        ("pending", 500, "HTTP 500")
    }
    page = api("GET", "/webhooks/chat/deliveries?limit=1&ordering=created_at").json()
    assert page["results"][0]["event"] == "task.failed"
    assert api("GET", page["next"]).json()["results"][0]["event"] == "run.completed"
    for query, count in (("event=task.", 1), ("status=pending", 2), ("status=delivered", 0)):
        found = api("GET", f"/webhooks/chat/deliveries?{query}").json()["results"]
        assert len(found) == count, query
    assert api("GET", "/webhooks/chat/deliveries?status=lost").status_code == 400
    one = api("GET", f"/webhooks/chat/deliveries/{rows[1]['id']}").json()
    assert one["body"]["type"] == "task.failed"
    assert one["body"]["data"]["details"] == {"message": "why"}
    assert one["message_id"].startswith("msg_")
    [tried] = one["attempts"]
    assert (tried["status"], tried["answer"], tried["duration_ms"]) == (500, "sorry", 12)
    assert api("GET", "/webhooks/chat/deliveries/999999").status_code == 404


def test_redelivery(api: Api, hook: dict[str, Any], project: Project) -> None:
    Event.objects.create(project=project, kind="run.completed")
    delivery = Delivery.objects.get()
    fail(outbox.TRIES)
    delivery.refresh_from_db()
    assert delivery.status == "failed"
    path = f"/webhooks/chat/deliveries/{delivery.pk}/redeliver"
    again = api("POST", path)
    assert (again.status_code, again.json()["status"], again.json()["tries"]) == (202, "pending", 0)
    [letter] = claimed()
    busy = api("POST", path)
    assert (busy.status_code, busy.json()["code"]) == (409, "conflict")
    outbox.record(letter, outbox.Answer(200))
    shown = api("GET", again["Location"]).json()
    assert (shown["status"], shown["last_status"], len(shown["attempts"])) == ("delivered", 200, 9)
    assert api("POST", path).status_code == 202  # a delivered one too
    assert api("PATCH", "/webhooks/chat", {"enabled": False}).status_code == 200
    assert api("POST", path).status_code == 409
    assert api("POST", "/webhooks/chat/test").status_code == 409


def test_a_test_is_sent_whatever_it_wants(api: Api, hook: dict[str, Any]) -> None:
    made = api("POST", "/webhooks/chat/test")
    assert (made.status_code, made.json()["event"]) == (202, "webhook.test")
    body = api("GET", made["Location"]).json()["body"]
    assert body["data"]["details"] == {"message": "A test of the webhook chat."}
    [letter] = claimed()
    assert json.loads(outbox.written(letter)[0]) == body


def test_who_may(make_api: Callable[..., Api], hook: dict[str, Any]) -> None:
    Delivery.objects.create(webhook_id=hook["id"], event="x", payload={})
    writer, reader = make_api("write", "read"), make_api("read")
    for method, path in (
        ("POST", "/webhooks"),
        ("PATCH", "/webhooks/chat"),
        ("DELETE", "/webhooks/chat"),
        ("POST", "/webhooks/chat/rotate"),
        ("POST", "/webhooks/chat/test"),
    ):
        assert writer(method, path, {}).status_code == 403, path
    assert reader("GET", "/webhooks/chat/deliveries").status_code == 200
    path = f"/webhooks/chat/deliveries/{Delivery.objects.get().pk}/redeliver"
    assert reader("POST", path).status_code == 403
    assert writer("POST", path).status_code == 202


def test_other_projects_see_nothing(api: Api, hook: dict[str, Any], project: Project) -> None:
    delivery = Delivery.objects.create(webhook_id=hook["id"], event="x", payload={})
    _, api.key = keys.create(Project.objects.create(slug="other"), "foreign", ["admin"])
    assert api("GET", "/webhooks").json()["results"] == []
    for ref in ("chat", hook["id"]):
        for method, path in (
            ("GET", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("POST", "/rotate"),
            ("POST", "/test"),
            ("GET", "/deliveries"),
            ("GET", f"/deliveries/{delivery.pk}"),
            ("POST", f"/deliveries/{delivery.pk}/redeliver"),
        ):
            answer = api(method, f"/webhooks/{ref}{path}", None if method == "GET" else {})
            assert answer.status_code == 404, (method, path)
    assert Webhook.objects.get().name == "chat"


def test_a_project_has_room_for_some(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "MAX_WEBHOOKS", 1)
    assert api("POST", "/webhooks", WISH).status_code == 201
    refused = api("POST", "/webhooks", {**WISH, "name": "second"})
    assert (refused.status_code, refused.json()["detail"]) == (
        400,
        "A project has at most 1 webhooks.",
    )


def test_reseal_covers_webhooks(api: Api, hook: dict[str, Any], capsys: Any) -> None:
    api("POST", "/webhooks/chat/rotate", {})
    before = Webhook.objects.get()
    call_command("secrets", "reseal")
    after = Webhook.objects.get()
    assert bytes(after.sealed) != bytes(before.sealed)
    assert bytes(after.old_sealed or b"") != bytes(before.old_sealed or b"")
    assert sealing.unseal(bytes(after.old_sealed or b"")) == hook["secret"]


# ---------------------------------------------------------------- in the admin
def test_admin_makes_shows_and_changes(people: Client, project: Project) -> None:
    add = reverse("admin:webhooks_webhook_add")
    form = {"project": project.pk, "name": "chat", "url": "http://10.0.0.1/", "events": "run.*"}
    wrong = people.post(add, form)
    assert b"not public" in wrong.content
    made = people.post(add, {**form, "url": URL, "enabled": "on"}, follow=True)
    secret = sealing.unseal(bytes(Webhook.objects.get().sealed))
    assert secret in made.content.decode()
    listed = reverse("admin:webhooks_webhook_changelist")
    hook = Webhook.objects.get()
    assert (hook.events, hook.enabled) == (["run.*"], True)
    page = reverse("admin:webhooks_webhook_change", args=[hook.pk])
    for address in (listed, page):
        assert secret not in people.get(address).content.decode()
    changed = {**form, "url": URL, "events": "run.*,task.*"}
    assert people.post(page, changed).status_code == 302
    hook.refresh_from_db()
    assert (hook.events, hook.enabled) == (["run.*", "task.*"], False)


def test_admin_acts_on_webhooks_and_deliveries(people: Client, project: Project) -> None:
    hook, _ = hooks.create(project, name="chat", url=URL, events=["run.*"], enabled=False)
    act(people, "webhooks_webhook", "enable", str(hook.pk))
    rotated = act(people, "webhooks_webhook", "rotate", str(hook.pk)).content.decode()
    assert sealing.unseal(bytes(Webhook.objects.get().sealed)) in rotated
    act(people, "webhooks_webhook", "send_test", str(hook.pk))
    fail(outbox.TRIES)
    delivery = Delivery.objects.get()
    shown = people.get(reverse("admin:webhooks_delivery_change", args=[delivery.pk]))
    assert b"webhook.test" in shown.content
    assert b"sorry" in shown.content
    listed = reverse("admin:webhooks_webhook_changelist")
    assert b"HTTP 500" in people.get(listed).content
    act(people, "webhooks_delivery", "redeliver", str(delivery.pk))
    delivery.refresh_from_db()
    assert (delivery.status, delivery.tries) == ("pending", 0)
    gone = reverse("admin:webhooks_webhook_delete", args=[hook.pk])
    assert people.post(gone, {"post": "yes"}).status_code == 302
    assert not Delivery.objects.exists()
    kept = [str(row.data) for row in AuditEntry.objects.all()]
    assert kept
    assert not [one for one in kept if "whsec_" in one]


def test_people_see_webhooks_of_their_own_projects(project: Project) -> None:
    from django.contrib.auth.models import Group

    from opscore.models import Membership

    other = Project.objects.create(slug="other")
    for place in (project, other):
        made, _ = hooks.create(place, name=f"of-{place.slug}", url=URL, events=["*"])
        Delivery.objects.create(webhook=made, event=f"told.{place.slug}", payload={})
    bob = User.objects.create_user("bob", password="wonderland", is_staff=True)
    bob.groups.add(Group.objects.get(name="operator"))
    Membership.objects.create(user=bob, project=project)
    browser = Client()
    assert browser.login(username="bob", password="wonderland")
    listed = browser.get(reverse("admin:webhooks_webhook_changelist")).content.decode()
    assert "of-default" in listed
    assert "of-other" not in listed
    told = browser.get(reverse("admin:webhooks_delivery_changelist")).content.decode()
    assert "told.default" in told
    assert "told.other" not in told
    mine = Delivery.objects.get(event="told.default")
    Delivery.objects.update(status="failed")
    act(browser, "webhooks_delivery", "redeliver", str(mine.pk))
    assert Delivery.objects.get(event="told.default").status == "pending"
