"""What an agent of the SDK is told: its functions, its name, its size."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opscore.config import ROOT
from opscore_sdk import Agent
from opscore_sdk.errors import from_answer
from opscore_sdk.testing import MemoryPlatform, running
from tests.sdk.conftest import Stub
from tests.sdk.test_agent import done


def _no_argument() -> None: ...


def _three(inputs: Any, context: Any, more: Any) -> None: ...


def _one(inputs: Any) -> None: ...


@pytest.mark.parametrize("function", [_no_argument, _three])
def test_functions_must_take_inputs_and_perhaps_a_context(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"\(inputs\) or \(inputs, context\)"):
        Agent("a").task("x")(function)
    with pytest.raises(TypeError, match=r"must take \(message\)"):
        Agent("a").on_message()(function)


def test_agents_without_sense_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="has no function"):
        Agent("a").run()
    agent = Agent("a", capabilities=["x", "y"])
    agent.task("x")(_one)
    with pytest.raises(ValueError, match="Two functions"):
        agent.task("x")(_one)
    with pytest.raises(ValueError, match="No function does 'y'"):
        agent.run()
    agent = Agent("a", concurrency=0)
    agent.task("x")(_one)
    with pytest.raises(ValueError, match="at least 1"):
        agent.run()
    agent.on_message("t")(_one)
    with pytest.raises(ValueError, match="Two functions take the messages"):
        agent.on_message("t")(_one)


def test_the_number_of_tasks_at_once_falls_back_to_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPSCORE_CONCURRENCY", raising=False)
    assert Agent("a").slots == 1
    monkeypatch.setenv("OPSCORE_CONCURRENCY", "7")
    assert Agent("a").slots == 7
    assert Agent("a", concurrency=3).slots == 3
    monkeypatch.setenv("OPSCORE_CONCURRENCY", "many")
    with pytest.raises(ValueError, match="OPSCORE_CONCURRENCY must be a whole number"):
        _ = Agent("a").slots


def test_the_name_falls_back_to_the_environment(
    hasty: MemoryPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opscore_sdk.place import PlaceError

    agent = Agent()
    agent.task("x")(_one)
    monkeypatch.delenv("OPSCORE_AGENT_NAME", raising=False)
    with pytest.raises(PlaceError, match="OPSCORE_AGENT_NAME"), running(agent, hasty):
        pass
    monkeypatch.setenv("OPSCORE_AGENT_NAME", "from-outside")
    with hasty.client() as api, running(agent, hasty):
        assert done(api, api.submit("x")).agent_name == "from-outside"


def test_capabilities_choose_among_the_functions(hasty: MemoryPlatform, wait_until: Any) -> None:
    agent = Agent("worker", capabilities=["b"], labels=["gpu"])
    agent.task("a")(_one)
    agent.task("b")(_one)
    with hasty.client() as api, running(agent, hasty):
        wait_until(lambda: hasty.engine.sessions)
        shown = api.agent("worker")
    assert (shown.capabilities, shown.labels) == (["b"], ["gpu"])


def test_a_refused_registration_ends_the_program_with_the_reason_and_status_78(stub: Stub) -> None:
    detail = "This agent cannot be registered."
    wrong = [{"path": "capabilities", "message": "the spec 'coder' does not have: zzz"}]
    stub.on("POST /agents", {"detail": detail, "code": "invalid", "errors": wrong}, 400)
    done = _run_agent(stub.url)
    assert done.returncode == 78
    last = done.stderr.splitlines()[-1]
    assert last.endswith(
        "This agent cannot be registered: capabilities: the spec 'coder' does not have: zzz"
    )
    assert "Traceback" not in done.stderr


def test_an_agent_without_an_address_ends_with_status_78(tmp_path: Path) -> None:
    done = _run_agent("", tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (78, False)
    assert "OPSCORE_API_URL is not set" in done.stderr


def _run_agent(url: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    code = "from opscore_sdk import Agent; a = Agent('coder'); a.task('zzz')(id); a.run()"
    own = {"OPSCORE_API_URL": url, "OPSCORE_API_KEY": "k", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **own},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_error_names_the_first_of_its_errors_once() -> None:
    wrong = [{"path": f"inputs.{n}", "message": f"wrong {n}"} for n in range(5)]
    said = from_answer(400, {"detail": "Not valid.", "errors": wrong})
    shown = "inputs.0: wrong 0; inputs.1: wrong 1; inputs.2: wrong 2 (and 2 more)"
    assert (str(said), len(said.errors)) == (f"Not valid: {shown}", 5)
    told = from_answer(400, {"detail": "inputs.0: wrong 0", "errors": wrong[:1]})
    assert str(told) == "inputs.0: wrong 0"
