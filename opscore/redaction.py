"""Takes secret values out of texts and JSON data, in the forms in which they get there. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

#: What stands there instead.
MASK = "***"
#: A shorter value, as a line of a longer one, is no secret: it would take ordinary words out.
SHORTEST_LINE = 8
_PERCENT = re.compile("%[0-9A-F]{2}")
#: A file of more lines is masked as a whole and by its first ones.
_MOST_LINES = 1000
#: Characters of each form that are looked for at every place of a text; the others are compared
#: where these are found.
_BEGINNING = 8


class Redactor:
    """Masks some values; without any it gives everything back as it is."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = {form for value in values for form in _forms(value) if form}
        length = min([_BEGINNING, *map(len, forms)])
        self._forms: dict[str, list[str]] = {}
        # The longest first: one value may be a part of another.
        for form in sorted(forms, key=len, reverse=True):
            self._forms.setdefault(form[:length], []).append(form)
        self._pattern = re.compile(_any_of(self._forms)) if forms else None

    def text(self, text: str) -> str:
        """Return the text without the values."""
        if self._pattern is None:
            return text
        kept, done, at = [], 0, 0
        while found := self._pattern.search(text, at):
            begin = found.start()
            forms = self._forms[found.group()]
            form = next((form for form in forms if text.startswith(form, begin)), None)
            if form is None:
                at = begin + 1
                continue
            kept += [text[done:begin], MASK]
            done = at = begin + len(form)
        return "".join([*kept, text[done:]])

    def data(self, data: Any) -> Any:
        """Return JSON-like data without the values, also in its keys; the same object if none."""
        return self._data(data) if self._pattern else data

    def _data(self, data: Any) -> Any:
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, Mapping):
            return {
                self.text(key) if isinstance(key, str) else key: self._data(value)
                for key, value in data.items()
            }
        if isinstance(data, list | tuple):
            return [self._data(value) for value in data]
        return data


def _forms(value: str) -> Iterator[str]:
    for part in {value, *_parts(value)}:
        yield part
        for escaped in (json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
            yield escaped
            yield escaped.replace("/", r"\/")
        for quoted in (quote(part, safe=""), quote_plus(part)):
            yield quoted
            yield _PERCENT.sub(lambda found: found[0].lower(), quoted)
    yield value.encode().hex()
    yield value.encode().hex().upper()
    yield from _in_base64(value.encode())


def _parts(value: str) -> Iterator[str]:
    # Logs are kept line by line, and so is what they show of a private key.
    lines = (line.strip() for line in (value, *value.splitlines()[:_MOST_LINES]))
    return (line for line in lines if len(line) >= SHORTEST_LINE)


def _in_base64(value: bytes) -> Iterator[str]:
    """Yield the value as it stands in Base64, by itself and in the middle of something longer.

    There it begins at one of three places of a group of four characters. Those at its edges
    depend on what stands beside it, and are left out; behind the last one may be nothing.
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            padded = encode(bytes(before) + value).decode()[(before * 8 + 5) // 6 :]
            bare = padded.rstrip("=")
            yield from (padded, bare, bare if bare == padded else bare[:-1])


def _any_of(words: Iterable[str]) -> str:
    """Return a pattern of words of one length as a tree: the common beginnings are tried once."""
    below: dict[str, list[str]] = {}
    for word in words:
        if word:
            below.setdefault(word[0], []).append(word[1:])
    branches = [re.escape(first) + _any_of(rest) for first, rest in below.items()]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})" if branches else ""
