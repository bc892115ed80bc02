"""Resolves many requests at once, and asks the solver nothing that an answer already tells."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pinproof.errors import ResolveError
from pinproof.locks.installer import Installer
from pinproof.locks.lock import Lock, Pin, Request
from pinproof.locks.resolution import Resolution
from pinproof.locks.resolve import resolve

#: How many solvers run side by side: a solver waits for the index most of its time.
SOLVERS = 6

#: A resolution, or the conflict that keeps it from being one.
Answer = Resolution | ResolveError


class Unanswered(Exception):  # noqa: N818 - not an error of ours: the caller tells whose it is
    """A question that no index answered, and why."""

    def __init__(self, question: str, why: ResolveError) -> None:
        super().__init__(why.what)
        self.question = question
        self.why = why


def solve(
    tool: Installer, requests: Mapping[str, Request], tell: Callable[[str, int, int], None]
) -> dict[str, Answer]:
    """Resolve the requests, which are named by their questions; a conflict is an answer.

    Raises Unanswered for the first that is none: then the others are stopped.
    """
    answers: dict[str, Answer] = {}
    # Small ones first: what they come to may answer the larger ones.
    parts = {
        question: {each for each, small in requests.items() if _is_part(small, request)}
        for question, request in requests.items()
    }
    stop = threading.Event()
    archives = functools.cache(functools.partial(_archives, tool))

    def one(question: str) -> Answer:
        request = requests[question]
        known = [(requests[part], answers[part]) for part in parts[question]]
        try:
            return _implied(request, known, archives) or resolve(request, tool, cancel=stop)
        except ResolveError as error:
            if error.conflict:
                return error
            raise Unanswered(question, error) from None

    with ThreadPoolExecutor(SOLVERS) as pool:
        left, running = dict.fromkeys(requests), dict[Future[Answer], str]()
        try:
            while left or running:
                for question in [each for each in left if parts[each] <= answers.keys()]:
                    running[pool.submit(one, question)] = question
                    del left[question]
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    question = running.pop(done)
                    answers[question] = done.result()
                    tell(question, len(answers), len(requests))
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return answers


def _is_part(small: Request, large: Request) -> bool:
    """Say if `large` asks for everything that `small` asks for, and for more packages."""
    same = replace(small, product=large.product, sources=large.sources) == large
    return same and set(small.product) < set(large.product)


def _archives(tool: Installer, request: Request) -> tuple[Pin, ...]:
    """Return the source archives that `request`, of nothing else, asks for."""
    return resolve(request, tool).sources


def _implied(
    request: Request,
    known: Iterable[tuple[Request, Answer]],
    archives: Callable[[Request], tuple[Pin, ...]],
) -> Answer | None:
    """Return what `request` comes to by what is known of parts of it; None where that is open.

    What conflicts in part conflicts as a whole; and where a part was solved by versions that the
    rest of the requirements are content with, the whole is solved by them too.
    """
    for small, answer in known:
        if not _is_part(small, request):
            continue
        if isinstance(answer, ResolveError):
            return answer
        if all(_holds(text, answer.lock) for text in set(request.product) - set(small.product)):
            bare = Request(product=(), harness=(), python=request.python, sources=request.sources)
            return replace(answer, sources=archives(bare) if request.sources else ())
    return None


def _holds(text: str, lock: Lock) -> bool:
    wanted = Requirement(text)
    versions = {pin.name: pin.version for pin in lock.product}
    version = versions.get(canonicalize_name(wanted.name))
    return (
        version is not None
        and not wanted.extras
        and wanted.url is None  # other bytes, whatever version they say they are
        and wanted.marker is None
        and wanted.specifier.contains(version, prereleases=True)
    )
