"""The examples of docs/executor-protocol.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agents.models import Agent, AgentSession
from opscore.config import ROOT
from tasks.models import Task, TaskLog

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_examples_do_what_the_text_says(server: Any) -> None:
    text = (ROOT / "docs" / "executor-protocol.md").read_text()
    script = "set -eu\n" + "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    env = {**os.environ, "OPSCORE_API_URL": server.url, "OPSCORE_API_KEY": server.key}
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"code"' not in done.stdout, done.stdout
    task = Task.objects.get()
    assert (task.status, task.result) == ("completed", {"text": "hello"})
    assert [line.text for line in TaskLog.objects.all()] == ["echoing"]
    assert AgentSession.objects.get().ended_at is not None
    assert Agent.objects.get().status == "terminated"


def test_nothing_else_that_a_reader_may_run_takes_its_task() -> None:
    own = _offered(ROOT / "docs" / "executor-protocol.md")
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "examples" / "agents.yaml"]
    examples = list((ROOT / "examples" / "agents").iterdir())
    others = [path for path in (*pages, *examples) if path.name != "executor-protocol.md"]
    assert own
    assert not own & set().union(*map(_offered, others))
    # Nor do the examples take the tasks of what the quickstart starts.
    assert not set().union(*map(_offered, examples)) & _offered(ROOT / "docs" / "quickstart.md")


def _offered(path: Path) -> set[str]:
    """Return the capabilities that agents offer in a text."""
    if not path.is_file():
        return set()
    text = path.read_text()
    lists = re.findall(r'capabilities\\?"?: \[([^\]]*)\]', text)
    words = [word for found in lists for word in re.findall(r"[\w-]+", found)]
    return {*words, *re.findall(r'\.task\("([\w-]+)"\)', text)}
