"""The examples of docs/executor-protocol.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
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
    assert (task.status, task.result) == ("completed", {"text": "HELLO"})
    assert [line.text for line in TaskLog.objects.all()] == ["shouting"]
    assert AgentSession.objects.get().ended_at is not None
    assert Agent.objects.get().status == "terminated"
