"""A command with verbs: options written once, examples in every help, errors that suggest."""

# argparse and no richer parser: every run pays for the import.

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

from pinproof import __version__
from pinproof.errors import ConfigurationError, ExitCode, did_you_mean

Asked = argparse.Namespace
Do = Callable[[Asked], ExitCode]


@dataclass(frozen=True)
class Option:
    """An option or an argument of verbs: its flags, and what argparse is told of it."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


def option(*flags: str, **settings: Any) -> Option:
    """Describe an option, or an argument by a name without dashes, as `add_argument` does."""
    return Option(flags, settings)


def switch(flag: str, about: str) -> Option:
    """Describe an option that takes no value."""
    return option(flag, action="store_true", help=about)


@dataclass(frozen=True)
class Verb:
    """A verb: what it does, whose docstring is its help, its options, the examples below that."""

    name: str
    do: Do
    options: tuple[Option, ...]
    examples: tuple[str, ...]


class Verbs:
    """Verbs that belong together, each made of a function by a decorator, in their order."""

    def __init__(self) -> None:
        self._all: list[Verb] = []

    def __iter__(self) -> Iterator[Verb]:
        return iter(self._all)

    def verb(
        self, name: str, *options: Option | Iterable[Option], examples: Sequence[str]
    ) -> Callable[[Do], Do]:
        """Make a verb of the decorated function."""
        flat = [one for each in options for one in ([each] if isinstance(each, Option) else each)]

        def add(do: Do) -> Do:
            self._all.append(Verb(name, do, tuple(flat), tuple(examples)))
            return do

        return add


class Command:
    """The parser of a command with its verbs."""

    def __init__(self, name: str, about: str, groups: Iterable[Iterable[Verb]]) -> None:
        self._top = _Parser(prog=name, description=about, allow_abbrev=False)
        self._top.add_argument("--version", action="version", version=f"{name} {__version__}")
        below = self._top.add_subparsers(metavar="VERB", required=True)
        self.verbs: dict[str, argparse.ArgumentParser] = {}
        for verb in chain.from_iterable(groups):
            about = "\n".join(line.strip() for line in (verb.do.__doc__ or "").strip().splitlines())
            parser = below.add_parser(
                verb.name,
                help=about.partition("\n")[0],
                description=about,
                epilog="\n  ".join(["examples:", *verb.examples]),
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
            )
            parser.set_defaults(do=verb.do)
            for each in verb.options:
                parser.add_argument(*each.flags, **each.settings)
            self.verbs[verb.name] = parser

    def run(self, words: Sequence[str]) -> ExitCode:
        """Do what `words` ask for. Raises ConfigurationError for words that are none of ours."""
        if not words:
            self._top.print_help()
            return ExitCode.CONFIGURATION
        verb = words[0]
        if not verb.startswith("-") and verb not in self.verbs:
            raise ConfigurationError(
                f"there is no verb {verb[:60]!r}.{did_you_mean(verb[:60], self.verbs)}",
                remedy=f"use one of: {', '.join(self.verbs)}",
            )
        _refuse_empty(words)
        asked, unknown = self._top.parse_known_args(words)
        if unknown:
            raise _unknown(self.verbs[verb], unknown[0])
        do: Do = asked.do
        return do(asked)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors of ours."""

    def error(self, message: str) -> NoReturn:
        name = self.prog.partition(" ")[2]  # the command says its own name before every error
        what = f"{name}: {message}" if name else message
        raise ConfigurationError(what, remedy=f"{self.prog} --help")


def _refuse_empty(words: Sequence[str]) -> None:
    """Find an unset variable of a shell: ``--select "$CHOICE"`` would choose everything."""
    for before, word in itertools.pairwise(words):
        name, _, value = word.partition("=")
        if not word.strip() or (word.startswith("--") and "=" in word and not value.strip()):
            what = name if word.strip() else before if before.startswith("-") else "an argument"
            raise ConfigurationError(
                f"{words[0]}: {what} is empty",
                cause="the variable that it comes from is not set",
                remedy="give it a value, or leave it out",
            )


def _unknown(parser: argparse.ArgumentParser, word: str) -> ConfigurationError:
    word = word.partition("=")[0][:60]
    meant = {"--stage": "--until"}.get(word, word)
    flags = [flag for action in parser._actions for flag in action.option_strings]
    kind = "option" if word.startswith("-") else "argument"
    return ConfigurationError(
        f"{parser.prog.partition(' ')[2]} takes no {kind} {word!r}.{did_you_mean(meant, flags)}",
        remedy=f"{parser.prog} --help",
    )
