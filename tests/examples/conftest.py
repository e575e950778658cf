"""Small real git repositories, made for one test each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

#: 2024-01-01 00:00 UTC; commits are a day apart.
FIRST_DAY_S = 1_704_067_200
DAY_S = 86_400


class Workshop:
    """A repository under the hands of a test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commits = 0
        root.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *arguments: str, cwd: Path | None = None, **environment: str) -> str:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *arguments],
            cwd=cwd or self.root,
            env={**clean, "HOME": str(self.root.parent), **environment},
            capture_output=True,
            check=True,
        )
        return done.stdout.decode(errors="replace").strip()

    def write(self, name: str | bytes, content: str | bytes) -> None:
        path = os.path.join(os.fsencode(self.root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)

    def commit(self, author: str = "Ann", *, day: int | None = None) -> str:
        """Commit everything; commits lie one day apart unless `day` says otherwise."""
        self.commits += 1
        time_s = FIRST_DAY_S + DAY_S * (self.commits if day is None else day)
        self.git("add", "--all")
        self.git(
            *("-c", f"user.name={author}", "-c", f"user.email={author.lower()}@example.org"),
            *("commit", "--quiet", "--allow-empty", "-m", f"change {self.commits}"),
            GIT_AUTHOR_DATE=f"{time_s} +0000",
            GIT_COMMITTER_DATE=f"{time_s} +0000",
        )
        return self.git("rev-parse", "HEAD")

    def clone(self, name: str, *options: str) -> Workshop:
        target = self.root.parent / name
        self.git("clone", "--quiet", *options, f"file://{self.root}", str(target))
        clone = object.__new__(Workshop)
        clone.root, clone.commits = target, self.commits
        return clone


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty repository."""
    return Workshop(tmp_path / "project")


@pytest.fixture
def make_workshop(tmp_path: Path) -> Callable[[str], Workshop]:
    """More than one repository."""
    return lambda name: Workshop(tmp_path / name)


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    """A shop whose `cart.py` is changed often and is hard; everything else is one of the two at most.

    `constants.py` is changed often but easy, `tax.py` is hard but was left in peace.
    """
    hard = "def {name}(a):\n" + "".join(
        f"    if a == {n} and a:\n        return {n}\n" for n in range(8)
    )
    workshop.write("shop/__init__.py", "")
    workshop.write("shop/tax.py", hard.format(name="tax"))
    workshop.write("shop/plain.py", "def plain():\n    return 1\n")
    workshop.write("tests/test_tax.py", "from shop.tax import tax\n\ndef test_tax():\n    tax(1)\n")
    workshop.commit("Ann")
    for number in range(6):
        workshop.write("shop/cart.py", hard.format(name="cart") + f"# {number}\n")
        workshop.write("shop/constants.py", f"RATE = {number} if True else 0\n")
        workshop.commit("Ann" if number < 4 else "Bob")
    return workshop
