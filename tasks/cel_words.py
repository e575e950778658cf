"""What the CEL library complains about, in words for people."""

from __future__ import annotations

import difflib
import re
from bisect import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_MOST = 3
_LONGEST = 400
_LONGEST_WORD = 100
#: Words before and behind one that it is compared with: a comparison takes some 15 us.
_NEIGHBOURS = 100


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with the text of an expression."""

    message: str
    at: int | None = None
    """Offset in the text, in characters."""


_LOCATED = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_CODE = re.compile(r"^(?:[A-Z_]+: )+|(?: \[[A-Z_]+\])+$")
_REWRITES = (
    (re.compile(r"^Syntax error: "), ""),
    (re.compile(r"(?:mismatched|extraneous) input '<EOF>'.*"), "ends too early"),
    (re.compile(r"(?:mismatched|extraneous) input (.*?) expecting .*"), r"unexpected \1"),
    (re.compile(r"no viable alternative at input (.*)"), r"unexpected \1"),
    (re.compile(r"token recognition error at: (.*)"), r"unexpected \1"),
    (re.compile(r"missing (.*) at '<EOF>'"), r"ends too early: \1 is missing"),
    (re.compile(r"undeclared reference to '(.*?)' .*"), r"unknown name `\1`"),
    (re.compile(r"found no matching overload for '(.*?)' applied to '(.*)'.*"), r"`\1` \2"),
    (re.compile(r"No matching overloads found : ([^(]*)(.*)"), r"`\1` \2"),
    (re.compile(r"Key not found in map : (.*)"), r"there is no key \1"),
    (re.compile(r"Index error: index=(.*) size=(.*)"), r"there is no element \1 of \2"),
    (re.compile(r"Integer value '(.*?)' out of range.*"), r"the number \1 has more than 64 bits"),
    (re.compile(r".*Iteration budget exceeded.*"), "takes too many iterations"),
    (re.compile(r".*recursion (?:limit|depth).*"), "nested too deeply (more than 32 levels)"),
)
_MISFIT = re.compile(r"`(.*)` (?:\((.*)\))?")
_CONDITIONS = {"_?_:_", "<jump_condition>", "!_", "_&&_", "_||_"}


def complaints(text: str, report: str) -> Iterator[Complaint]:
    """Read a compiler's report on `text`: a line `ERROR: <input>:1:4: …` for each error."""
    located = list(_LOCATED.finditer(report))
    # What follows from another error says `*error*`.
    for found in [each for each in located if "*error*" not in each[3]][:_MOST]:
        line, column = int(found[1]), int(found[2])
        yield Complaint(plain_words(found[3]), _offset(text, line, column) if line > 0 else None)
        # Errors after one without a place only repeat it.
        if line <= 0:
            return
    if not located:
        yield Complaint(plain_words(report))


def plain_words(message: str) -> str:
    """Rewrite one message of the library."""
    # Some messages quote all data.
    words = _CODE.sub("", message.partition("\n")[0]).strip()[:_LONGEST]
    for pattern, replacement in _REWRITES:
        words = pattern.sub(replacement, words)
    misfit = _MISFIT.fullmatch(words)
    return _misfit(misfit[1], misfit[2] or "") if misfit else words


def meant(word: str, words: Iterable[str]) -> str:
    """Return "; did you mean `…`?" with the word that is closest, or ''.

    Of many words only those count that stand next to it in the alphabet.
    """
    if len(word) > _LONGEST_WORD:
        return ""
    known = sorted(words)
    place = bisect(known, word)
    near = known[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS]
    close = difflib.get_close_matches(word, near, 1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _misfit(operator: str, kinds: str) -> str:
    if operator in _CONDITIONS:
        return "a condition must be true or false"
    name = operator if operator[:1].isalpha() else operator.replace("_", "").lstrip("@")
    kinds = kinds.replace("int64", "int")
    convert = {"int", "double"} <= set(kinds.split(", "))
    hint = "; convert with double() or int()" if convert else ""
    what = f"`{name}`" if name else "this function"
    return f"{what} cannot be applied to ({kinds}){hint}"


def _offset(text: str, line: int, column: int) -> int:
    before = text.split("\n")[: line - 1]
    return sum(len(each) + 1 for each in before) + column - 1
