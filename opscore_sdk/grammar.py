"""How commands are declared: in groups, each with `--json`, its help and its function's name."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn

from opscore_sdk.statuses import MEANINGS

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_WRONG_CHOICE = re.compile(
    r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL
)


class Parser(argparse.ArgumentParser):
    """A parser that names the nearest word where one is not known."""

    def parse_known_args(  # type: ignore[override] # the stubs' overloads say less than they do
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse what a command does not know with the usage of this command."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and " " in self.prog:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(unknown[0])}")
        return found, unknown

    def _hint(self, unknown: str) -> str:
        options = list(self._option_string_actions)
        near = difflib.get_close_matches(unknown.partition("=")[0], options, n=1)
        return f"; did you mean {near[0]}?" if near else ""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with the status of wrong usage."""
        found = _WRONG_CHOICE.fullmatch(message)
        if found:
            known = [word.strip(" '") for word in found[3].split(",")]
            near = difflib.get_close_matches(found[2], known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            message = f"unknown {found[1]} {found[2]!r}; {hint}"
        super().error(message)


class Verbs:
    """Adds commands to a parser; `opscore --help` lists them by the groups they were added to."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._everywhere = Parser(add_help=False)
        # Without a default: what stands before a word of a command must count behind it too.
        self._everywhere.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="write JSON to stdout"
        )
        parser.set_defaults(json=False, alone=False)
        self._adder = parser.add_subparsers(
            required=True,
            metavar="COMMAND",
            help=argparse.SUPPRESS,
            parser_class=Parser,
            prog="opscore",
        )
        self._groups: dict[str, list[tuple[str, str]]] = {}
        self._group = ""

    def group(self, title: str) -> None:
        """Begin a group: what is added from now on is listed under this title."""
        self._group = title

    def add(
        self, name: str, verb: str, purpose: str, *, alone: bool = False
    ) -> argparse.ArgumentParser:
        """Add a command, whose function is `module.name`; `alone`: it takes no client."""
        parser = self._made(self._adder, name, verb, purpose)
        parser.set_defaults(alone=alone)
        self._groups.setdefault(self._group, []).append((name, purpose))
        return parser

    def add_hidden(self, name: str, verb: str) -> argparse.ArgumentParser:
        """Add a command that is for programs alone."""
        parser: argparse.ArgumentParser = self._adder.add_parser(name, parents=[self._everywhere])
        parser.set_defaults(verb=verb)
        return parser

    def add_for_run(self, name: str, verb: str, purpose: str) -> argparse.ArgumentParser:
        """Add a command about one run."""
        parser = self.add(name, verb, purpose)
        parser.add_argument("run", metavar="RUN", help="id of a run")
        return parser

    def add_below(
        self, parent: argparse.ArgumentParser, name: str, verb: str, purpose: str
    ) -> argparse.ArgumentParser:
        """Add a second word of a command, which may stand without one too."""
        adder = getattr(parent, "_below", None)
        if adder is None:
            adder = parent.add_subparsers(metavar="[WORD]", prog=parent.prog, parser_class=Parser)
            parent._below = adder  # type: ignore[attr-defined]  # noqa: SLF001 - kept where it belongs
        return self._made(adder, name, verb, purpose)

    def listed(self) -> str:
        """Return all commands by their groups."""
        width = max(len(name) for group in self._groups.values() for name, _ in group)
        return "\n\n".join(
            "\n".join([f"{title}:", *(f"  {name:<{width}}  {purpose}" for name, purpose in group)])
            for title, group in self._groups.items()
        )

    def _made(self, adder: Any, name: str, verb: str, purpose: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = adder.add_parser(
            name,
            parents=[self._everywhere],
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=MEANINGS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(verb=verb)
        return parser


def add_limit(parser: argparse.ArgumentParser, default: int) -> None:
    """Add `--limit`."""
    text = f"how many (default {default})"
    parser.add_argument("--limit", type=count, default=default, metavar="N", help=text)


def add_every(parser: argparse.ArgumentParser) -> None:
    """Add the pause between two looks, which tests make short."""
    parser.add_argument("--every-s", type=float, default=0.5, metavar="S", help=argparse.SUPPRESS)


def add_waiting(parser: argparse.ArgumentParser) -> None:
    """Add how long a run is waited for."""
    parser.add_argument("--timeout-s", type=float, metavar="S", help="wait at most so many seconds")
    parser.add_argument(
        "--patience",
        type=duration,
        default=120.0,
        metavar="TIME",
        help="stay so long while the platform does not answer: 90s, 2m, 1h (default 2m)",
    )
    add_every(parser)


def duration(text: str) -> float:
    """Return the seconds of `90s`, `2m`, `1h` or `90`; raises ArgumentTypeError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: expected 90s, 2m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def count(text: str) -> int:
    """Return a whole number from 1 on; raises ArgumentTypeError."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)
