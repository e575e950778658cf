"""The scripts that complete commands in a shell, made from the parser itself."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from opscore_sdk import report
from opscore_sdk.statuses import DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opscore_sdk.client import Client

#: Argument -> what it names, of which the platform knows a list.
_NAMED = {"run": "runs", "agent": "agents", "schedule": "schedules", "what": "workflows"}
#: Arguments that are files.
_FILES = frozenset({"file", "files", "what"})
#: Names of one kind that are offered.
_MOST = 200


@dataclass
class Word:
    """A command, or a word below one."""

    path: tuple[str, ...]
    purpose: str
    words: list[str] = field(default_factory=list)
    """What may follow: words below it, choices of its arguments."""
    options: dict[str, str] = field(default_factory=dict)
    """Its options, long ones where there are, and what they are for."""
    named: str = ""
    """What it names: runs, agents, schedules or workflows."""
    takes_files: bool = False


def completion(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    script = _SCRIPTS[options.shell](list(words()))
    answer = {"shell": options.shell, "script": script}
    report.done(script, answer, as_json=options.json)
    return DONE


def names(client: Client, options: argparse.Namespace) -> int:
    """Print the names of a kind; none where the platform does not say them: nobody reads errors."""
    from opscore_sdk.errors import OpsCoreError  # noqa: PLC0415 - waits for no HTTP client

    lists: Mapping[str, Callable[[], Iterable[str]]] = {
        "runs": lambda: [run.id for run in client.runs(limit=_MOST)],
        "agents": lambda: [agent.name for agent in client.agents(limit=_MOST)],
        "schedules": lambda: [one.name for one in client.schedules(limit=_MOST)],
        "workflows": lambda: [one.name for one in client.workflows(limit=_MOST)],
    }
    with contextlib.suppress(OpsCoreError, KeyError):
        report.done("\n".join(lists[options.kind]()), None, as_json=False)
    return DONE


def words() -> Iterator[Word]:
    """Yield what the parser knows: all commands first, under an empty path."""
    from opscore_sdk.commands import parser  # noqa: PLC0415 - it names this module

    yield from _words(parser(), (), "")


def _words(parser: argparse.ArgumentParser, path: tuple[str, ...], purpose: str) -> Iterator[Word]:
    word = Word(path, purpose)
    below: list[Word] = []
    for action in parser._actions:  # noqa: SLF001 - the only way to ask a parser what it knows
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            below = list(_below(action, path))
            word.words += [one.path[-1] for one in below if len(one.path) == len(path) + 1]
        elif action.option_strings:
            if action.help != argparse.SUPPRESS:
                word.options[action.option_strings[-1]] = action.help or ""
        else:
            word.words += [str(choice) for choice in action.choices or ()]
            word.named = word.named or _NAMED.get(action.dest, "")
            word.takes_files = word.takes_files or action.dest in _FILES
    yield word
    yield from below


def _below(
    action: argparse._SubParsersAction[argparse.ArgumentParser], path: tuple[str, ...]
) -> Iterator[Word]:
    for name, parser in action.choices.items():
        if parser.description:  # those that are for programs alone have none
            yield from _words(parser, (*path, name), parser.description)


def _bash(known: list[Word]) -> str:
    cases = "\n".join(_bash_case(word) for word in known)
    return _BASH.replace("@CASES@", cases)


def _bash_case(word: Word) -> str:
    said = " ".join([*word.words, *word.options])
    kind = f" kind={word.named}" if word.named else ""
    return f'        "{" ".join(word.path)}") words="{said}"{kind} ;;'


_BASH = r"""# Completes `opscore` in bash:  source <(opscore completion bash)
_opscore() {
    local cur="${COMP_WORDS[COMP_CWORD]}" path="" words="" kind="" i word
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        case "$path $word" in
            *" -"*) ;;
            " "*) path="$word" ;;
            "runs watch" | "audit verify") path="$path $word" ;;
        esac
    done
    case "$path" in
@CASES@
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    if [[ -n "$kind" && "$cur" != -* ]]; then
        COMPREPLY+=($(compgen -W "$(opscore complete-names "$kind" 2>/dev/null)" -- "$cur"))
    fi
}
complete -o bashdefault -o default -F _opscore opscore
"""

_ZSH = """#compdef opscore
# Completes `opscore` in zsh:  source <(opscore completion zsh)
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
autoload -Uz bashcompinit && bashcompinit
"""


def _zsh(known: list[Word]) -> str:
    return _ZSH + _bash(known).split("\n", 1)[1]


def _fish(known: list[Word]) -> str:
    lines = [
        "# Completes `opscore` in fish:  opscore completion fish | source",
        "complete -c opscore -f",
    ]
    for word in known:
        lines += _fish_lines(word)
    return "\n".join([*lines, ""])


def _fish_lines(word: Word) -> Iterator[str]:
    if not word.path:
        return
    *before, name = word.path
    seen = f"__fish_seen_subcommand_from {before[-1]}" if before else "__fish_use_subcommand"
    yield f"complete -c opscore -n '{seen}' -a {name} -d {_quoted(word.purpose)}"
    inside = f"complete -c opscore -n '__fish_seen_subcommand_from {name}'"
    for option, text in word.options.items():
        yield f"{inside} -l {option.lstrip('-')} -d {_quoted(text)}"
    if word.words:
        yield f"{inside} -a {_quoted(' '.join(word.words))}"
    if word.named:
        yield f"{inside} -a '(opscore complete-names {word.named} 2>/dev/null)'"
    if word.takes_files:
        yield f"{inside} -F"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SCRIPTS: Mapping[str, Callable[[list[Word]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
