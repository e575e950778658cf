"""What the command and the package load, and when."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import import_module

import pytest

import opscore_sdk
from opscore.config import ROOT
from opscore_sdk import commands


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["nonsense"]])
def test_help_waits_for_no_http_client(arguments: list[str]) -> None:
    code = f"""
import sys
from opscore_sdk.cli import main
try:
    main({arguments})
except SystemExit:
    print(sorted(sys.modules), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = done.stderr.splitlines()[-1]
    assert "'opscore_sdk.commands'" in loaded
    for heavy in ("httpx", "rich", "asyncio", "opscore_sdk.client"):
        assert f"'{heavy}'" not in loaded


def test_every_command_names_a_function() -> None:
    [adder] = [a for a in commands.parser()._actions if isinstance(a, argparse._SubParsersAction)]
    named = {choice.get_default("verb") for choice in adder.choices.values()}
    for verb in named:
        module, name = verb.split(".")
        assert callable(getattr(import_module(f"opscore_sdk.{module}"), name))


def test_every_public_name_is_there() -> None:
    assert {name for name in opscore_sdk.__all__ if getattr(opscore_sdk, name)} <= set(
        dir(opscore_sdk)
    )
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        opscore_sdk.Nothing  # noqa: B018
