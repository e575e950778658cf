"""Log lines: colours are for terminals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from opscore.config import ROOT

SCRIPT = """
import logging.config
from opscore.logs import get_logger, logging_config

logging.config.dictConfig(logging_config("console", "INFO"))
log = get_logger("here")
try:
    secret = "swordfish"
    raise ValueError("went wrong")
except ValueError:
    log.exception("failed", step=3)
"""


def run(stderr: int, **environment: str) -> None:
    plain = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    command = [sys.executable, "-c", SCRIPT]
    subprocess.run(command, cwd=ROOT, env={**plain, **environment}, stderr=stderr, check=True)


def on_a_terminal(**environment: str) -> str:
    ours, theirs = os.openpty()
    try:
        run(theirs, **environment)
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_terminal_shows_colours() -> None:
    assert "\x1b[" in on_a_terminal()


def test_no_color_is_obeyed() -> None:
    text = on_a_terminal(NO_COLOR="1")
    assert "failed" in text
    assert "\x1b" not in text


def test_a_log_file_is_plain_and_holds_no_values_of_variables(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    with file.open("wb") as log:
        run(log.fileno())
    text = file.read_text()
    assert "[error    ] failed" in text
    assert "step=3" in text
    assert "\nTraceback (most recent call last):" in text
    assert text.isascii()
    assert "\x1b" not in text
    assert "swordfish" not in text.replace('secret = "swordfish"', "")
