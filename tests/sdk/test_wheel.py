"""The wheel: built, installed where nothing else is, and used there."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from opscore.config import ROOT
from opscore_sdk.testing import MemoryPlatform

PROGRAM = """
import sys, asyncio
from opscore_sdk import Agent, AsyncClient, Client
from opscore_sdk.testing import MemoryPlatform, running
platform, agent = MemoryPlatform(), Agent("a")
@agent.task("x")
async def x(inputs, context):
    context.log("here")
    return inputs
with running(agent, platform), platform.client() as client:
    run = client.wait(client.submit("x", inputs={"n": 1}).run_id, every_s=0.05, timeout_s=20)
    assert run.created_at.tzinfo and run.status == "completed"
assert not {"django", "celery", "rich", "opscore"} & set(sys.modules)
print("%d.%d" % sys.version_info[:2])
"""


def _run(*command: str | Path, **environ: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environ}
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env=env, cwd="/", capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without any download."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "opscore_sdk"
    shutil.copytree(
        ROOT / "opscore_sdk", source, ignore=shutil.ignore_patterns("__pycache__", "build", "dist")
    )
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    _run(*pip, "--wheel-dir", folder, source)
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "opscore_sdk").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert held == ours


def _interpreters() -> Iterator[str]:
    """Every Python from 3.10 on that is here, the oldest first."""
    shims = glob.glob(os.path.expanduser("~/.pyenv/versions/3.1*/bin/python"))
    names = [shutil.which(f"python3.{minor}") for minor in range(10, 20)]
    found: dict[tuple[int, ...], str] = {}
    for name in [*filter(None, names), *shims, sys.executable]:
        tell = [name, "-c", "import sys, venv; print(*sys.version_info[:2])"]
        done = subprocess.run(tell, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode == 0:
            found.setdefault(tuple(map(int, done.stdout.split())), name)
    yield from (found[version] for version in sorted(found) if version >= (3, 10))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_works_with_httpx_alone_on_the_oldest_python_that_is_here(
    wheel: Path, tmp_path: Path
) -> None:
    oldest = next(_interpreters())
    _run(oldest, "-m", "venv", tmp_path / "bare")
    python = tmp_path / "bare" / "bin" / "python"
    try:
        index = {name: text for name, text in os.environ.items() if name.startswith("PIP_")}
        _run(python, "-m", "pip", "install", "--quiet", wheel, **index)
    except AssertionError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"httpx cannot be had here: {str(error)[-200:]}")
    version = _run(oldest, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    assert _run(python, "-c", PROGRAM) == version
    platform = MemoryPlatform()
    with platform.serve() as url:
        own = {"OPSCORE_API_URL": url, "OPSCORE_API_KEY": platform.key}
        assert "No agent" in _run(tmp_path / "bare" / "bin" / "opscore", "agents", **own)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_documented_way_to_the_wheel_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "sdk.md").read_text()
    [script] = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    source = shutil.ignore_patterns("__pycache__", "build", "dist")
    shutil.copytree(ROOT / "opscore_sdk", tmp_path / "opscore_sdk", ignore=source)
    words = ["bash", "-euc", f"cd {tmp_path}\n{script}"]
    index = {name: text for name, text in os.environ.items() if name.startswith("PIP_")}
    try:
        said = _run(*words, **index)
    except AssertionError as error:
        if os.environ.get("CI") or "No matching distribution" not in str(error):
            raise
        pytest.skip(f"nothing can be downloaded here: {str(error)[-200:]}")
    assert "usage: opscore" in said
    held = {path.name for path in tmp_path.glob("var/bare/lib/python3*/site-packages/*.dist-info")}
    names = {name.partition("-")[0] for name in held}
    assert "httpx" in names
    assert not {"rich", "django", "celery"} & {name.lower() for name in names}
