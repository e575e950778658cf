"""docs/testing.md: its example is run as it stands there, its table names what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from opscore.config import ROOT
from workflows.testing import Rehearsal

PAGE = (ROOT / "docs" / "testing.md").read_text()
EXAMPLE = PAGE.split("as it stands here. -->")[1].split("```python\n")[1].split("```")[0]


def test_example_runs_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["workflows.testing"]\n')
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\nDJANGO_SETTINGS_MODULE = opscore.settings\npythonpath = . {ROOT}\n"
    )
    (tmp_path / "test_release.py").write_text(EXAMPLE)
    clean = {name: word for name, word in os.environ.items() if not name.startswith("PYTEST")}
    url = urlsplit(os.environ["OPSCORE_DATABASE_URL"])
    environment = {
        **clean,
        "OPSCORE_DATABASE_URL": urlunsplit(url._replace(path="/postgres")),
        "OPSCORE_BROKER_URL": "redis://127.0.0.1:1/0",  # nobody is there, nobody is asked
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_table_names_every_public_call() -> None:
    table = PAGE.split("| call |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)[(`\[]", table))
    public = {name for name in vars(Rehearsal) if not name.startswith("_")} | {"calls"}
    assert named - {"Context", "Definition"} == public - {"step"}
