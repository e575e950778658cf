"""What of the children's logs belongs on the terminal: warnings and errors, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from opscore.platform.sentences import told

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MARKS = re.compile(
    r"\[(warning|error|critical)\s*\]|\"level\":\s*\"(warning|error|critical)\"|"
    r"^(Traceback |\w+Error: )|\[(WARNING|ERROR|CRITICAL)\b"
)
_MAX_LINES = 20


class ImportantLines:
    """Follows one log file from its present end."""

    def __init__(self, name: str, log: Path) -> None:
        self._name = name
        self._log = log
        self._offset = log.stat().st_size if log.exists() else 0

    def fresh(self) -> Iterator[str]:
        """Yield the important lines since the last call, at most 20 of them."""
        lines = [line for line in self._whole_lines() if _MARKS.search(line)]
        for line in lines[:_MAX_LINES]:
            yield f"{self._name}: {told(line)}"
        if len(lines) > _MAX_LINES:
            yield f"{self._name}: {len(lines) - _MAX_LINES} more in {self._log}"

    def _whole_lines(self) -> list[str]:
        if not self._log.exists():
            return []
        if self._log.stat().st_size < self._offset:
            # The file was put aside because of its size, a new one began.
            self._offset = 0
        with self._log.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        # A line that is still being written is read whole next time.
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [_COLOUR.sub("", line) for line in whole.decode(errors="replace").splitlines()]
