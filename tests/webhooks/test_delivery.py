"""From what happened to what a receiver gets: signed, tried again, one beside the other."""

from __future__ import annotations

import signal
import threading

import pytest
from django.db import connection

from opscore import vault
from opscore.models import Event, Project
from tests.conftest import WaitUntil
from tests.webhooks.conftest import MakeHook, PushProcess, couriers, due_now, happen, is_
from tests.webhooks.receiver import Receiver, receiving
from webhooks import hooks, outbox
from webhooks.models import Delivery, Try, Webhook

pytestmark = pytest.mark.django_db(transaction=True)


def test_event_is_delivered_and_signed(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    receiver, hook = make_hook("chat", "agent.*")
    delivery = happen(project, agent="ann")
    with couriers():
        wait_until(lambda: is_(delivery, "delivered"))
    [body], [headers] = receiver.bodies, receiver.headers
    assert (body["type"], body["data"]["details"]) == ("agent.lost", {"agent": "ann"})
    assert list(body) == ["type", "timestamp", "data"]
    assert receiver.signed_by(receiver.secret)
    assert not receiver.signed_by("whsec_" + "A" * 43 + "=")
    assert headers["webhook-id"] == f"msg_{hook.id.hex}_{delivery.pk}"
    assert headers["Content-Type"] == "application/json"
    [tried] = delivery.attempts.all()
    assert (tried.status, tried.error, delivery.tries) == (204, "", 1)
    hook.refresh_from_db()
    assert (hook.last_status, hook.failures, hook.failing_since) == (204, 0, None)


def test_a_failed_try_is_made_again_and_stands_in_the_log(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    receiver, hook = make_hook("chat", "agent.*")
    receiver.behaviour = lambda body: (500, "out of order \0" + "x" * 5000)
    delivery = happen(project)
    with couriers():
        wait_until(lambda: Try.objects.count() == 1)
        delivery.refresh_from_db()
        hook.refresh_from_db()
        assert (delivery.status, delivery.tries, hook.failures) == ("pending", 1, 1)
        waits = (delivery.due_at - hook.last_at).total_seconds()  # type: ignore[operator]
        assert 4.9 <= waits <= 6.1
        receiver.behaviour = lambda body: (200, "thanks")
        due_now()
        wait_until(lambda: is_(delivery, "delivered"))
    first, second = delivery.attempts.order_by("id")
    assert (first.status, first.error) == (500, "HTTP 500")
    assert first.answer.startswith("out of order x")
    assert len(first.answer) < 1001
    assert (second.status, second.answer) == (200, "thanks")
    assert receiver.raw[0] == receiver.raw[1]
    assert receiver.headers[0]["webhook-id"] == receiver.headers[1]["webhook-id"]
    hook.refresh_from_db()
    assert (hook.failures, hook.failing_since) == (0, None)


def test_a_receiver_that_is_down_gets_it_when_it_is_up(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    with receiving(Receiver()) as gone:
        port, url = gone.port, gone.url
    make_hook("chat", "agent.*", url=url)
    delivery = happen(project)
    with couriers():
        wait_until(lambda: Try.objects.count() == 1)
        assert Try.objects.get().status is None
        assert not is_(delivery, "failed")
        with receiving(Receiver(), port) as back:
            due_now()
            wait_until(lambda: is_(delivery, "delivered"))
            assert back.types == ["agent.lost"]


def test_retries_end_after_about_a_day(project: Project, make_hook: MakeHook) -> None:
    make_hook("chat", "agent.*")
    delivery = happen(project)
    waits = []
    for number in range(outbox.TRIES):
        due_now()
        [letter] = outbox.claim(1)
        assert letter.tries == number
        outbox.record(letter, outbox.Answer(503, "HTTP 503"))
        delivery.refresh_from_db()
        if delivery.due_at is not None:
            before = Webhook.objects.get().last_at
            assert before is not None
            waits.append((delivery.due_at - before).total_seconds())
    assert (delivery.status, delivery.tries, outbox.TRIES) == ("failed", 8, 8)
    for wait_s, delay_s in zip(waits, outbox.DELAYS_S, strict=True):
        assert delay_s * 0.99 <= wait_s <= delay_s * (1.01 + outbox.JITTER)
    assert list(outbox.DELAYS_S) == sorted(outbox.DELAYS_S)
    assert 24 * 3600 < sum(outbox.DELAYS_S) < 32 * 3600
    assert outbox.claim(10) == []


def test_a_receiver_may_ask_for_time(project: Project, make_hook: MakeHook) -> None:
    make_hook("chat", "agent.*")
    delivery = happen(project)
    [letter] = outbox.claim(1)
    outbox.record(letter, outbox.Answer(429, "HTTP 429", hold_s=1e9))
    delivery.refresh_from_db()
    hook = Webhook.objects.get()
    assert delivery.due_at is not None
    assert hook.last_at is not None
    assert 3590 < (delivery.due_at - hook.last_at).total_seconds() < 3610


def test_what_a_dead_sender_took_is_sent_by_the_next_one(
    push_process: PushProcess, project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    receiver, _ = make_hook("chat", "agent.*")
    gate = threading.Event()
    receiver.behaviour = lambda body: (gate.wait(20), 500)[1:]
    first = happen(project)
    wait_until(lambda: receiver.bodies, 30)
    push_process.end(signal.SIGKILL)
    second = happen(project, "agent.registered")  # nobody is there to send it
    gate.set()
    receiver.behaviour = lambda body: (204,)
    assert is_(first, "sending")
    Delivery.objects.filter(status="sending").update(due_at="2020-01-01T00:00:00Z")
    push_process.start()
    wait_until(lambda: is_(first, "delivered") and is_(second, "delivered"), 30)
    assert sorted(receiver.types) == ["agent.lost", "agent.lost", "agent.registered"]
    assert push_process.end() == 0


def test_a_sender_that_is_stopped_gives_back_what_it_cannot_finish(
    push_process: PushProcess, project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    receiver, _ = make_hook("chat", "agent.*")
    gate = threading.Event()
    receiver.behaviour = lambda body: (gate.wait(20), 500)[1:]
    delivery = happen(project)
    wait_until(lambda: receiver.bodies, 30)
    assert push_process.end() == 0
    gate.set()
    delivery.refresh_from_db()
    assert (delivery.status, delivery.tries) == ("pending", 0)
    assert len(outbox.claim(1)) == 1


def test_a_slow_receiver_holds_up_no_other(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    slow, _ = make_hook("slow", "agent.*")
    fast, _ = make_hook("fast", "agent.*")
    gate = threading.Event()
    slow.behaviour = lambda body: (gate.wait(20), 204)[1:]
    for _ in range(12):
        happen(project)
    with couriers():
        wait_until(lambda: len(fast.bodies) == 12 and len(slow.bodies) == outbox.AT_ONCE)
        assert Delivery.objects.filter(webhook__name="slow", status="sending").count() == 4
        gate.set()
        wait_until(lambda: not Delivery.objects.exclude(status="delivered").exists())
    assert slow.most_at_once == outbox.AT_ONCE
    assert len(slow.bodies) == 12


def test_several_couriers_share_the_work(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    receiver, _ = make_hook("chat", "agent.*")
    for _ in range(40):
        happen(project)
    with couriers(3):
        wait_until(lambda: not Delivery.objects.exclude(status="delivered").exists())
    assert len(receiver.bodies) == 40
    assert len({headers["webhook-id"] for headers in receiver.headers}) == 40


def test_an_event_that_commits_late_is_not_missed(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    """Its number is lower than that of one that was delivered before it existed."""
    receiver, _ = make_hook("chat", "agent.*")
    late = connection.copy()
    with couriers():
        late.set_autocommit(False)
        with late.cursor() as cursor:
            cursor.execute(
                "INSERT INTO opscore_event (project_id, kind, actor, data)"
                " VALUES (%s, 'agent.late', '', '{}')",
                [project.pk],
            )
        happen(project, "agent.early")
        wait_until(lambda: receiver.types == ["agent.early"])
        late.commit()
        late.close()
        wait_until(lambda: receiver.types == ["agent.early", "agent.late"])


def test_gone_disables_at_once_and_says_so(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    receiver, hook = make_hook("chat", "agent.*")
    receiver.behaviour = lambda body: (410,)
    delivery = happen(project)
    with couriers():
        wait_until(lambda: is_(delivery, "failed"))
    hook.refresh_from_db()
    assert (hook.enabled, hook.disabled_reason) == (False, "It answered 410 Gone.")
    told = Event.objects.get(kind="webhook.disabled")
    assert told.data == {"webhook": "chat", "reason": "It answered 410 Gone."}
    Event.objects.create(project=project, kind="agent.lost")
    assert Delivery.objects.count() == 1


def test_one_that_fails_for_a_day_is_disabled_and_can_be_enabled(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    receiver, hook = make_hook("chat", "agent.*")
    for _ in range(outbox.TRIES + 2):
        happen(project)
    for number, letter in enumerate(outbox.claim(4) + outbox.claim(4)):
        outbox.record(letter, outbox.Answer(500, "HTTP 500"))
        assert Webhook.objects.get().enabled, number
    claimed = outbox.claim(9)
    assert len(claimed) == 4
    for letter in claimed:
        outbox.record(letter, outbox.Answer(500, "HTTP 500"))
    assert Webhook.objects.get().enabled  # not for a day yet
    Webhook.objects.update(failing_since="2020-01-01T00:00:00Z")
    [letter] = outbox.claim(1)
    outbox.record(letter, outbox.Answer(500, "HTTP 500"))
    hook.refresh_from_db()
    assert not hook.enabled
    assert "tries since 2020-01-01 00:00:00 UTC failed; last: HTTP 500" in hook.disabled_reason
    due_now()
    assert outbox.claim(100) == []
    hooks.change(project, "chat", enabled=True)
    hook.refresh_from_db()
    assert (hook.enabled, hook.disabled_reason, hook.failures) == (True, "", 0)
    with couriers():
        wait_until(lambda: len(receiver.bodies) == outbox.TRIES + 2)


def test_old_and_new_secret_both_sign_for_a_while(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    from datetime import timedelta

    receiver, _ = make_hook("chat", "agent.*")
    old = receiver.secret
    _, new = hooks.rotate(project, "chat", overlap=timedelta(hours=1))
    first = happen(project)
    with couriers():
        wait_until(lambda: is_(first, "delivered"))
        assert receiver.signed_by(old)
        assert receiver.signed_by(new)
        Webhook.objects.update(old_until="2020-01-01T00:00:00Z")
        second = happen(project)
        wait_until(lambda: is_(second, "delivered"))
    assert not receiver.signed_by(old)
    assert receiver.signed_by(new)


def test_secrets_of_the_project_are_masked(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil
) -> None:
    receiver, _ = make_hook("chat", "agent.*")
    receiver.behaviour = lambda body: (500, "you said wonderland!")
    happen(project, reason="the key is wonderland!")
    vault.put(project, "KEY", "wonderland!")
    vault.forget()
    with couriers():
        wait_until(Try.objects.exists)
    assert receiver.bodies[0]["data"]["details"] == {"reason": "the key is ***"}
    assert Try.objects.get().answer == "you said ***"
