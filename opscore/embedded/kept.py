"""Generated secrets of this checkout, kept in one file that only its owner can read."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path


class Kept:
    """Words kept in `var/kept.json`; each change is written at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._words: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str) -> str:
        """Return a word, '' when there is none."""
        return self._words.get(name, "")

    def set(self, name: str, value: str) -> None:
        """Keep a word."""
        if self._words.get(name) != value:
            self._words[name] = value
            write_private(self.path, json.dumps(self._words, indent=1))

    def secret(self, name: str) -> str:
        """Return the secret of that name, made on first use."""
        if not self.get(name):
            self.set(name, secrets.token_urlsafe(24))
        return self.get(name)


def write_private(path: Path, text: str) -> None:
    """Write a file with mode 600, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    unfinished.replace(path)
