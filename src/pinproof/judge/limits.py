"""The calls that a candidate fails, in words that a user can act on. Pure.

A case is known by its id, as ``128x217-d64-h4k2-causal-softcap15-bf16-peaked``: query and key
lengths, head dimension, heads, then words. What the failing cases share and no passing case has is
what not to call.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pinproof.judge.speed import Speed

if TYPE_CHECKING:
    from pinproof.matrix.matrixfile import Policy

#: How a status reads in a sentence about a candidate, worst first.
VERBS = {
    "CRASH": "crashes",
    "HANG": "hangs",
    "ERROR": "raises an error",
    "FAIL": "gives wrong numbers",
    "FLAKY": "gives other numbers each time",
    "DEGRADED": "is less precise than a correct kernel",
}

_DTYPES = ("bf16", "fp16", "fp32", "fp64")
_INPUTS = ("diffuse", "peaked")
_MOST = 3

#: How `pinproof_cell.suite.examine` says what a candidate does not take; those features in words.
_ADMITS = re.compile(r"does not admit (.+)$")
_FEATURES = {
    "causal-rectangular": "causal with Sq != Sk",
    "gqa": "grouped heads",
    "unaligned-head": "head dimensions that are no multiple of 8",
    "wide-head": "head dimensions above 128",
    "empty-rows": "rows that see no key",
    "one-key": "a single key",
    "no-keys": "Sk = 0",
}


def features(case_id: str) -> dict[str, int]:
    """Return what a case is, each property with its rank: low ranks make better advice.

    Rank 0 is an empty length; 1 a named feature (causal, softcap); 2 the feature with its value,
    or more queries than keys; 3 a head dimension; 4 a type; 5 lengths; 6 the kind of input.
    """
    found: dict[str, int] = {}
    for word in case_id.split("-"):
        if match := re.fullmatch(r"(\d+)x(\d+)", word):
            sq, sk = map(int, match.groups())
            found[f"Sq = {sq}"] = 5 if sq else 0
            found[f"Sk = {sk}"] = 5 if sk else 0
            if sq > sk:
                found["Sq > Sk"] = 2
        elif match := re.fullmatch(r"d(\d+)", word):
            found[f"head dimension {match.group(1)}"] = 3
        elif word in _DTYPES:
            found[word] = 4
        elif word in _INPUTS:
            found[f"{word} inputs"] = 6
        elif match := re.fullmatch(r"h(\d+)k(\d+)", word):
            found["grouped heads"] = 1
            found[f"{match.group(1)} heads on {match.group(2)}"] = 2
        elif match := re.fullmatch(r"([a-z]+)([\d.-]+)", word):
            found[match.group(1)] = 1
            found[f"{match.group(1)} {match.group(2)}"] = 2
        elif word:
            found[word] = 1
    return found


def describe(bad: Collection[str], good: Collection[str]) -> str:
    """Say what the ids in `bad` share that no id in `good` has: ``softcap, or Sk = 0``.

    Greedy: again and again the property, or the pair of them, that covers most of what is left.
    Cases that no such property tells from a good one are named by id. "any arguments" where
    nothing is good.
    """
    if not good:
        return "any arguments"
    passing = [frozenset(features(case_id)) for case_id in good]
    left = {case_id: features(case_id) for case_id in sorted(bad)}
    said: list[str] = []
    while left and len(said) < _MOST and (words := _telling(left, passing)):
        said.append(" with ".join(words))
        left = {case: found for case, found in left.items() if not found.keys() >= set(words)}
    if left:
        more = f" and {len(left) - _MOST} more cases" if len(left) > _MOST else ""
        said.append(", ".join(itertools.islice(left, _MOST)) + more)
    return ", or ".join(said)


def _telling(
    left: Mapping[str, Mapping[str, int]], passing: Collection[frozenset[str]]
) -> tuple[str, ...] | None:
    """Return the words, at most two, that cover most cases of `left` and none of `passing`."""
    ranks = {word: rank for found in left.values() for word, rank in found.items()}
    known = sorted(ranks, key=lambda word: (ranks[word], word))
    options = [*itertools.combinations(known, 1), *itertools.combinations(known, 2)]

    def worth(words: tuple[str, ...]) -> tuple[int, int, int]:
        covered = sum(found.keys() >= set(words) for found in left.values())
        return -covered, len(words), sum(ranks[word] for word in words)

    apart = [words for words in options if not any(set(words) <= good for good in passing)]
    # A pair that never occurs together is apart from everything, and says nothing.
    return min((words for words in apart if worth(words)[0]), key=worth, default=None)


def detail(case: Mapping[str, Any]) -> str:
    """Return the shortest proof that a case gives: its signal, else its first reason."""
    if case.get("signal"):
        return str(case["signal"])
    reasons = case.get("reasons") or ()
    return str(reasons[0]) if reasons else str(case.get("status", "")).lower()


def grouped(cases: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Group failing cases by status and signal, the worst first: [(status, cases)]."""
    groups: dict[tuple[int, str, str], list[Mapping[str, Any]]] = {}
    order = list(VERBS)
    for case in cases:
        if (status := str(case.get("status"))) in VERBS:
            key = (order.index(status), status, str(case.get("signal") or ""))
            groups.setdefault(key, []).append(case)
    return [(key[1], groups[key]) for key in sorted(groups)]


def asked(
    candidate: Mapping[str, Any], policy: Policy, *, outside: bool = False
) -> list[Mapping[str, Any]]:
    """Return the candidate's cases in (or `outside`) the policy's uses; no use named: all."""
    uses = set(policy.uses) or {"everything"}
    return [
        case
        for case in candidate.get("cases", ())
        if bool(uses.intersection(case.get("uses") or uses)) is not outside
    ]


def ids(cases: Sequence[Mapping[str, Any]], status: str) -> list[str]:
    """Return the ids of the cases that ended as `status`."""
    return [str(case["id"]) for case in cases if case["status"] == status]


def _refused(cases: Sequence[Mapping[str, Any]], passing: Collection[str]) -> str:
    """Say what a candidate refuses: the features that it names itself, else what is in the cases.

    A candidate names every feature of a case that it lacks, so each of them is refused alone too.
    """
    refused = [case for case in cases if case["status"] == "UNSUPPORTED"]
    named = [match[1] for case in refused if (match := _ADMITS.search(detail(case)))]
    if not refused or len(named) < len(refused):
        return describe([str(case["id"]) for case in refused], passing) if refused else ""
    words = sorted({word for words in named for word in words.split(", ")})
    return ", ".join(_FEATURES.get(word, word) for word in words)


def limits(
    correctness: Mapping[str, Any],
    throughput: Mapping[str, Any],
    speed: Speed | None,
    policy: Policy,
) -> Iterator[str]:
    """Yield what fails outside the asked uses, what is refused, and what was not measured."""
    for candidate in correctness.get("candidates", ()):
        name, inside = candidate["name"], asked(candidate, policy)
        outside = asked(candidate, policy, outside=True)
        passing = ids([*inside, *outside], "PASS")
        for status, group in grouped(outside):
            where = describe(ids(group, status), passing)
            verb = "expect less precision" if status == "DEGRADED" else "do not call"
            yield f"{name}: {verb} with {where} ({detail(group[0])})"
        if passing and (refused := _refused(inside, passing)):
            yield f"{name}: refuses {refused}"
    floor = policy.min_throughput
    if speed is not None and floor is not None and speed.low < floor <= speed.high:
        yield f"{speed.candidate}: {speed} may be below the asked {floor:g}"
