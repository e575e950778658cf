"""Secrets reach executors, and nothing else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.fernet import Fernet

from agents.handlers import Context, HandlerError
from opscore import jobs, sealing, vault
from opscore.config import load_config
from opscore.database import query
from opscore.errors import InvalidError
from opscore.models import Event, OldSecret, Secret
from opscore.redaction import MASK
from tasks import claims
from tasks.models import Attempt, Run, Task, TaskLog
from tests.engine.conftest import Bench, error_of
from tests.engine.flows import begin, node, task_of
from workflows import registry
from workflows.definition import parse

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "s3cr3t/of the house"
TEMPLATE = {"token": "${{ secrets.TOKEN }}", "header": "Bearer ${{ secrets['TOKEN'] }}"}


@pytest.fixture
def token(bench: Bench) -> str:
    vault.put(bench.project, "TOKEN", TOKEN)
    return TOKEN


def test_handler_gets_the_value_and_no_row_keeps_it(bench: Bench, token: str) -> None:
    seen: list[Any] = []

    def work(context: Context) -> Any:
        seen.append(context.inputs)
        context.log(f"I have {token} now, twice: {token}")
        return {"it": token, "encoded": base64.b64encode(token.encode()).decode(), token: [token]}

    bench.does("work", work)
    run = bench.finish(begin(bench, node("a", inputs=TEMPLATE)))
    assert run.status == "completed"
    assert seen == [{"token": TOKEN, "header": f"Bearer {TOKEN}"}]
    assert task_of(run, "a").result == {"it": MASK, "encoded": MASK, MASK: [MASK]}
    assert [row.text for row in TaskLog.objects.all()] == [f"I have {MASK} now, twice: {MASK}"]
    assert not _kept_anywhere(token)


def test_error_that_quotes_a_secret_is_masked(bench: Bench, token: str) -> None:
    def work(context: Context) -> Any:
        raise HandlerError(f"401 for {context.inputs['token']}", type="denied")

    bench.does("work", work)
    run = bench.finish(begin(bench, node("a", inputs=TEMPLATE)))
    assert error_of(task_of(run, "a"))["message"] == f"401 for {MASK}"
    assert Attempt.objects.exists()
    assert not _kept_anywhere(token)


def test_polling_agent_gets_the_value_with_its_claim(bench: Bench, token: str) -> None:
    begin(bench, node("a", inputs=TEMPLATE))
    [task] = claims.poll(bench.session.id, 1)
    assert task.as_dict()["inputs"]["token"] == token


def test_task_fails_in_a_sentence_when_its_secret_is_gone(bench: Bench, token: str) -> None:
    run = begin(bench, node("a", inputs={"deep": [TEMPLATE]}))
    vault.drop(bench.project, "TOKEN", "alice")
    assert bench.finish(run).status == "failed"
    error = error_of(task_of(run, "a"))
    assert error["message"] == "deep[0].token: there is no secret `TOKEN` in this project"
    assert error["type"] == "expression"


def test_changed_secret_is_new_for_the_next_task_and_masked_in_both_forms(
    bench: Bench, token: str
) -> None:
    seen: list[Any] = []

    def work(context: Context) -> Any:
        seen.append(context.inputs["token"])
        return f"{token} another1"

    bench.does("work", work)
    run = begin(bench, node("a", inputs=TEMPLATE), node("b", "a", inputs=TEMPLATE))
    bench.step(task_of(run, "a"))
    vault.put(bench.project, "TOKEN", "another1")
    bench.finish(run)
    assert seen == [TOKEN, "another1"]
    assert task_of(run, "b").result == f"{MASK} {MASK}"


def test_secrets_of_another_project_are_not_there(bench: Bench, token: str) -> None:
    Secret.objects.update(project=type(bench.project).objects.create(slug="other"))
    run = bench.finish(begin(bench, node("a", inputs=TEMPLATE)))
    assert "no secret `TOKEN`" in error_of(task_of(run, "a"))["message"]


@pytest.mark.parametrize(
    ("where", "text", "said"),
    [
        ("tasks.a.if", "${{ secrets.T == 'x' }}", "known only in the `with` of tasks"),
        ("tasks.a.with.all", "${{ secrets }}", "must be written out, as in secrets.TOKEN"),
        ("tasks.a.with.any", "${{ secrets[inputs.x] }}", "must be written out"),
        ("tasks.a.outputs.o", "${{ secrets.T }}", "known only in the `with` of tasks"),
        ("tasks.sub.with.t", "${{ secrets.T }}", "known only in the `with` of tasks"),
        ("outputs.o", "${{ secrets.T }}", "known only in the `with` of tasks"),
    ],
)
def test_definition_may_name_secrets_only_where_an_agent_gets_them(
    where: str, text: str, said: str
) -> None:
    tasks: dict[str, Any] = {"a": {"capability": "work"}, "sub": {"uses": "workflow:other"}}
    document: dict[str, Any] = {"name": "w", "tasks": tasks}
    place: Any = document
    *above, last = where.split(".")
    for word in above:
        place = place.setdefault(word, {})
    place[last] = text
    with pytest.raises(InvalidError) as caught:
        parse(json.dumps(document))
    [problem] = caught.value.problems
    assert problem.path == where
    assert said in problem.message


def test_catch_and_undo_get_secrets_too(bench: Bench, token: str) -> None:
    work = {"capability": "work", "with": {"t": "${{ secrets.TOKEN }}"}}
    tasks = {"a": {"capability": "other", "catch": work, "undo": work}}
    registry.upload(bench.project, parse(json.dumps({"name": "w", "tasks": tasks})))
    seen: list[Any] = []
    bench.does("work", lambda context: seen.append(context.inputs["t"]))

    def fail(context: Context) -> Any:
        raise HandlerError("no luck")

    bench.does("other", fail)
    run = bench.finish(registry.execute(bench.project, "w", inputs={}))
    assert run.status == "completed"
    assert seen == [token]


def test_keys_are_changed_in_two_steps(
    bench: Bench, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    with Keys(monkeypatch, old):
        vault.put(bench.project, "TOKEN", token)
        vault.put(bench.project, "TOKEN", "another1")
        vault.put(bench.project, "TOKEN", token)
    with Keys(monkeypatch, f"{new},{old}"):
        assert vault.read(bench.project.pk, ["TOKEN"]) == {"TOKEN": token}
        assert vault.reseal() == 1
    with Keys(monkeypatch, new):
        assert vault.read(bench.project.pk, ["TOKEN"]) == {"TOKEN": token}
        vault.forget()
        assert vault.redactor(bench.project.pk).text("another1") == MASK
    with Keys(monkeypatch, old):
        with pytest.raises(sealing.SealedError, match="OPSCORE_SEAL_KEYS"):
            vault.read(bench.project.pk, ["TOKEN"])
        # What masks must go on, or no task of the project could end here.
        vault.forget()
        assert vault.redactor(bench.project.pk).text(token) == token
    with Keys(monkeypatch, "short"), pytest.raises(sealing.SealedError, match="32 random bytes"):
        vault.read(bench.project.pk, ["TOKEN"])


def test_a_value_is_masked_everywhere_at_once(
    bench: Bench, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = vault._memories
    monkeypatch.setattr(vault._Asking, "every_s", 0.0)
    assert vault.redactor(bench.project.pk).text(token) == MASK
    monkeypatch.setattr(vault, "_memories", {})
    vault.put(bench.project, "TOKEN", "another1")
    monkeypatch.setattr(vault, "_memories", here)
    assert vault.redactor(bench.project.pk).text("another1") == MASK
    # A worker that has not read it itself asks once a second.
    # A worker that has not read it itself asks once a second.
    monkeypatch.setattr(vault._Asking, "every_s", 1.0)
    monkeypatch.setattr(vault, "_memories", {})
    vault.put(bench.project, "TOKEN", "another2")
    monkeypatch.setattr(vault, "_memories", here)
    assert vault.redactor(bench.project.pk).text("another2") == "another2"
    here[bench.project.pk].asked_at -= 1.0
    assert vault.redactor(bench.project.pk).text("another2") == MASK


def test_old_values_are_masked_for_a_day_also_after_a_restart(
    bench: Bench, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.put(bench.project, "TOKEN", "another1")
    vault.drop(bench.project, "TOKEN")
    vault.forget()
    assert vault.redactor(bench.project.pk).text(f"{token} another1") == f"{MASK} {MASK}"
    assert vault.read(bench.project.pk, ["TOKEN"]) == {}
    jobs.clean_up()
    first, second = OldSecret.objects.order_by("id")
    assert [sealing.unseal(bytes(row.sealed)) for row in (first, second)] == [token, "another1"]
    OldSecret.objects.update(replaced_at=first.replaced_at - vault.KEPT)
    jobs.clean_up()
    assert not OldSecret.objects.exists()
    vault.forget()
    assert vault.redactor(bench.project.pk).text(token) == token


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("1st", "long enough", "name"),
        ("a-b", "long enough", "name"),
        ("", "long enough", "name"),
        ("x" * 65, "long enough", "name"),
        ("A", "short", "value"),
        ("A", "x" * 40_000, "value"),
        ("A", "with \0 in it", "value"),
        ("A", "aaaaaaaaaaaa", "value"),
    ],
)
def test_what_cannot_be_a_secret_is_refused(bench: Bench, name: str, value: str, path: str) -> None:
    with pytest.raises(InvalidError) as caught:
        vault.put(bench.project, name, value)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert not Secret.objects.exists()


def test_project_has_a_bounded_number_of_secrets(
    bench: Bench, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault, "MAX_SECRETS", 2)
    vault.put(bench.project, "SECOND", "long enough")
    with pytest.raises(InvalidError, match="at most 2"):
        vault.put(bench.project, "THIRD", "long enough")
    assert vault.put(bench.project, "SECOND", "long enough, too")[1] is False
    told = Event.objects.filter(kind__startswith="secret.").order_by("id")
    kinds = list(told.values_list("kind", flat=True))
    assert kinds == ["secret.created", "secret.created", "secret.changed"]


class Keys:
    """For a while, this installation has these keys."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
        self._monkeypatch, self._keys = monkeypatch, keys

    def __enter__(self) -> None:
        config = load_config()
        self._monkeypatch.setattr(config, "seal_keys", type(config.seal_keys)(self._keys))
        sealing._keys.cache_clear()

    def __exit__(self, *_: Any) -> None:
        self._monkeypatch.undo()
        sealing._keys.cache_clear()


def _kept_anywhere(value: str) -> bool:
    """Look through every column of every row of tasks, runs, logs and events."""
    models = (Task, Run, Attempt, TaskLog, Event, Secret)
    return any(
        query(
            f"SELECT 1 FROM {model._meta.db_table} t WHERE strpos(t::text, %(v)s) > 0", {"v": value}
        )
        for model in models
    )
