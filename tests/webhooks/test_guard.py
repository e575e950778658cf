"""Where nothing is sent, and answers that would hold up or mislead the sender."""

from __future__ import annotations

import socket
import threading

import pytest

from opscore.config import load_config
from opscore.errors import InvalidError
from opscore.models import Project
from tests.conftest import WaitUntil
from tests.webhooks.conftest import MakeHook, couriers, happen, is_
from tests.webhooks.receiver import Receiver, receiving
from webhooks import courier, hooks
from webhooks.models import Try, Webhook

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "127.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "[fd00::1]",
        "[fe80::1]",
    ],
)
def test_nothing_is_sent_inside(
    project: Project,
    make_hook: MakeHook,
    host: str,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: WaitUntil,
) -> None:
    """Refused where it is registered, and where it is sent if it came in before."""
    receiver, _ = make_hook("chat", "agent.*")
    monkeypatch.setattr(load_config(), "push_networks", "")
    url = f"http://{host}:{receiver.port}/hook"
    with pytest.raises(InvalidError) as refused:
        hooks.create(project, name="inside", url=url, events=["*"])
    assert "not public" in refused.value.problems[0].message
    Webhook.objects.update(url=url)
    happen(project)
    with couriers():
        wait_until(Try.objects.exists)
    assert "not public" in Try.objects.get().error
    assert receiver.bodies == []


def test_a_name_that_is_rebound_is_asked_for_once(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, _ = make_hook("chat", "agent.*")
    monkeypatch.setattr(load_config(), "push_networks", "127.0.0.1/32")
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    Webhook.objects.update(url=f"http://rebound.example:{receiver.port}/hook")
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    delivery = happen(project)
    with couriers(resolver=resolver):
        wait_until(lambda: is_(delivery, "delivered"))
    assert asked == ["rebound.example"]
    assert receiver.headers[0]["Host"] == f"rebound.example:{receiver.port}"
    refused = happen(project)
    with couriers(resolver=resolver):
        wait_until(refused.attempts.exists)
    assert "not public" in refused.attempts.get().error
    assert len(receiver.bodies) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_refused(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil, status: int
) -> None:
    receiver, _ = make_hook("chat", "agent.*")
    with receiving(Receiver()) as inside:
        receiver.behaviour = lambda body: (status, "", {"Location": inside.url})
        happen(project)
        with couriers():
            wait_until(Try.objects.exists)
        assert Try.objects.get().error == f"HTTP {status}: redirects are not followed"
        assert inside.bodies == []


def test_an_answer_that_never_ends_counts_by_its_status(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "READ_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as serving:
        make_hook("chat", "agent.*", url=f"http://127.0.0.1:{serving.getsockname()[1]}/")
        delivery = happen(project)
        with couriers():
            caller, _ = serving.accept()
            caller.recv(65536)
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\nand so on")
            wait_until(lambda: is_(delivery, "delivered"))
            caller.close()
    assert delivery.attempts.get().answer == "and so on"


def test_no_answer_is_a_failed_try(
    project: Project, make_hook: MakeHook, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "TIMEOUT_S", 0.2)
    receiver, _ = make_hook("chat", "agent.*")
    gate = threading.Event()
    receiver.behaviour = lambda body: (gate.wait(20), 200)[1:]
    happen(project)
    with couriers():
        wait_until(Try.objects.exists)
        gate.set()
    tried = Try.objects.get()
    assert (tried.status, tried.error) == (None, "no answer within 0.2 s")
