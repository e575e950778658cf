"""A git repository, read safely: none of its hooks, helpers or remotes is ever run."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from examples.repo_review.languages import is_foreign, language_of

MAX_FILE_BYTES = 1_000_000
#: A cloned repository is somebody else's text: its configuration must not start programs,
#: and a clone owned by another user is read all the same.
_SAFE = (
    "safe.directory=*",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.quotePath=false",
    "log.showSignature=false",
    "protocol.allow=never",
)
_GENERATED = re.compile(rb"@generated|DO NOT EDIT|[Gg]enerated by ", re.ASCII)


class RepositoryError(Exception):
    """The repository cannot be read; the message says why, in a sentence."""


@dataclass(frozen=True)
class Skipped:
    """Why a file was left out."""

    reason: str


@dataclass(frozen=True)
class Repository:
    """A work tree; file names are text that JSON and a database can hold (see `shown`)."""

    root: Path

    @classmethod
    def open(cls, path: str) -> Repository:
        """Find the work tree that `path` lies in; raises RepositoryError with a clear sentence."""
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise RepositoryError(f"{path} is not a folder.")
        top = run_git(folder, "rev-parse", "--show-toplevel").removesuffix(b"\n")
        return cls(Path(os.fsdecode(top)))

    def git(self, *arguments: str) -> bytes:
        """Run one reading git command here; raises RepositoryError when it fails."""
        return run_git(self.root, *arguments)

    def head(self) -> str:
        """Return the commit that is checked out, or '' before the first commit."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", "HEAD^{commit}").decode().strip()
        except RepositoryError:
            return ""

    def files(self) -> list[str]:
        """Return every regular file that git tracks, sorted; submodules and links are left out.

        Where nothing is tracked yet, the files that a first `git add` would take.
        """
        names = {
            entry.split(b"\t", 1)[1]
            for entry in self.git("ls-files", "--stage", "-z").split(b"\0")
            if entry.startswith(b"100")
        }
        if not names:
            listed = self.git("ls-files", "--others", "--exclude-standard", "-z")
            names = {name for name in listed.split(b"\0") if name}
        return sorted(shown(name) for name in names)

    def code(self) -> list[str]:
        """Return the tracked files that hold own code, tests included."""
        return [name for name in self.files() if language_of(name) and not is_foreign(name)]

    def on_disk(self, name: str) -> str:
        """Return the name that the file system knows for a file that is shown as `name`."""
        return name if os.path.lexists(self.root / name) else real(name)

    def read(self, name: str) -> bytes | Skipped:
        """Return a file's content, or why it is left out: missing, a link, large, binary."""
        path = self.root / self.on_disk(name)
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                return Skipped("link")
            if found.st_size > MAX_FILE_BYTES:
                return Skipped("larger than 1 MB")
            content = path.read_bytes()
        except OSError:
            return Skipped("missing")
        if b"\0" in content[:8000]:
            return Skipped("binary")
        return content

    def read_code(self, name: str) -> bytes | Skipped:
        """Return a file's content as `read` does, unless its head says that it is generated."""
        content = self.read(name)
        if isinstance(content, bytes) and _GENERATED.search(content[:300]):
            return Skipped("generated")
        return content


def run_git(folder: Path, *arguments: str) -> bytes:
    """Run git in `folder`, with nothing inherited that could point it elsewhere."""
    command = ["git", "--no-pager", *(part for item in _SAFE for part in ("-c", item)), *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise RepositoryError("The program git is not installed on this host.") from None
    if done.returncode:
        raise RepositoryError(_sentence(folder, done.stderr))
    return done.stdout


def shown(name: bytes) -> str:
    """Return a file name as text: UTF-8, with every other byte as `\\xNN`."""
    return name.decode("utf-8", "backslashreplace")


def real(name: str) -> str:
    """Return the name on disk of a file that is shown with `\\xNN` in it."""
    raw = re.sub(
        rb"\\x([89a-f][0-9a-f])", lambda found: bytes.fromhex(found[1].decode()), name.encode()
    )
    return os.fsdecode(raw)


def _sentence(folder: Path, stderr: bytes) -> str:
    text = stderr.decode("utf-8", "replace").strip()
    if "not a git repository" in text:
        return f"{folder} is not inside a git repository."
    if "must be run in a work tree" in text:
        return f"{folder} is a bare repository; a checkout with its files is needed."
    return f"git cannot read {folder}: {text.splitlines()[-1] if text else 'no reason given'}"
