"""What failing checks share and no passing one has, in words: what not to call. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping

from pinproof.judge.checks import Check

#: How the features of a case read behind "do not call with"; the others read as they are.
FEATURES = {
    "alibi": "ALiBi",
    "backward": "the backward pass",
    "causal-rectangular": "causal with Sq != Sk",
    "empty-rows": "queries that see no key",
    "empty-sequences": "empty sequences",
    "expanded": "broadcast K and V",
    "far": "tensors beyond 2^31 elements",
    "gqa": "grouped heads",
    "left-padding": "left padding",
    "lse": "the log-sum-exp",
    "no-keys": "Sk = 0",
    "no-queries": "Sq = 0",
    "one-key": "a single key",
    "page-16": "pages of 16 keys",
    "page-64": "pages of 64 keys",
    "page-256": "pages of 256 keys",
    "page-small": "pages of fewer than 16 keys",
    "paged": "paged keys",
    "splits": "a number of splits",
    "strided": "strided views",
    "strided-head": "a last stride other than 1",
    "unaligned-head": "head dimensions that are no multiple of 8",
    "value-head": "another head dimension of V",
    "varlen": "packed sequences",
    "wide-head": "head dimensions above 128",
}
_TYPES = frozenset({"fp16", "bf16", "fp32"})
_FIELDS = {
    "batch": "batch",
    "dropout": "dropout",
    "head_dim": "head dimension",
    "head_dim_v": "head dimension of V",
    "heads": "heads",
    "heads_k": "key heads",
    "page": "pages of",
    "scale": "scale",
    "softcap": "softcap",
    "splits": "splits",
    "window": "window",
}
_MOST = 3


def features(names: Iterable[str]) -> str:
    """Return features in words, with commas between them."""
    return ", ".join(FEATURES.get(name, name) for name in sorted(names))


def properties(check: Check) -> dict[str, int]:
    """Return what the call of a check is, each property with its rank: low ranks advise better.

    Rank 0 is an empty length; 1 a feature; 2 a field of the call with its value, or more queries
    than keys; 3 how it was asked, if otherwise than by its numbers; 4 a type; 5 lengths; 6 the kind
    of input.
    """
    found = {FEATURES.get(name, name): 4 if name in _TYPES else 1 for name in check.features}
    for name in check.features & {"no-keys", "no-queries"}:
        found[FEATURES[name]] = 0
    queries, keys = check.case.get("seqlen_q"), check.case.get("seqlen_k")
    for name, length in (("Sq", queries), ("Sk", keys)):
        if length is not None:
            found.setdefault(f"{name} = {length}", 5 if length else 0)
    if queries is not None and keys is not None and queries > keys:
        found["Sq > Sk"] = 2
    for name, words in _FIELDS.items():
        if name in check.case:
            found[f"{words} {_value(check.case[name])}"] = 2
    if "kind" in check.case:
        found[f"{check.case['kind']} inputs"] = 6
    if check.kind == "repeats":
        found["repeated calls"] = 3
    elif check.kind != "case":
        found[f"what {check.id.partition('@')[0]} asks"] = 3
    return found


def describe(bad: Collection[Check], good: Collection[Check]) -> str:
    """Say what the checks in `bad` share that none in `good` has: ``softcap, or Sk = 0``.

    Greedy: again and again the property, or the pair of them, that covers most of what is left.
    Checks that no such property tells from a good one are named by id. "any arguments" where
    nothing is good.
    """
    if not good:
        return "any arguments"
    passing = [frozenset(properties(check)) for check in good]
    left = {check.id: properties(check) for check in sorted(bad, key=lambda check: check.id)}
    said: list[str] = []
    while left and len(said) < _MOST and (words := _telling(left, passing)):
        said.append(" with ".join(words))
        left = {name: found for name, found in left.items() if not found.keys() >= set(words)}
    if left:
        more = f" and {len(left) - _MOST} more checks" if len(left) > _MOST else ""
        said.append(", ".join(itertools.islice(left, _MOST)) + more)
    return ", or ".join(said)


def _telling(
    left: Mapping[str, Mapping[str, int]], passing: Collection[frozenset[str]]
) -> tuple[str, ...] | None:
    """Return the words, at most two, that cover most checks of `left` and none of `passing`."""
    ranks = {word: rank for found in left.values() for word, rank in found.items()}
    known = sorted(ranks, key=lambda word: (ranks[word], word))
    options = [*itertools.combinations(known, 1), *itertools.combinations(known, 2)]

    def worth(words: tuple[str, ...]) -> tuple[int, int, int]:
        covered = sum(found.keys() >= set(words) for found in left.values())
        return -covered, len(words), sum(ranks[word] for word in words)

    apart = [words for words in options if not any(set(words) <= good for good in passing)]
    # A pair that never occurs together is apart from everything, and says nothing.
    return min((words for words in apart if worth(words)[0]), key=worth, default=None)


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
