"""The search: several children, case after case, and a closer look at every failure."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from pinproof_cell.fuzz.groups import DEADLY, Answer, Group, Groups
from pinproof_cell.fuzz.interview import Interview, UnavailableError
from pinproof_cell.fuzz.shrink import shrink
from pinproof_cell.fuzz.space import SIZES, Space
from pinproof_cell.judge import defects
from pinproof_cell.judge.conditions import Outcome
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.supervise import CHECK_LIMIT

#: How long one failure may be made smaller, in seconds; a fresh process costs one or more.
SHRINKING = 20.0
#: How long after the time failures may still be put into groups, in seconds.
GRACE = 20.0
#: So many deaths of a kind that no feature explains, and the candidate is not worth more.
MOST_DEATHS = 40
#: So many cases that end their process are run although their cause is known.
DEATHS_OF_A_KIND = 2


@dataclass(frozen=True)
class Hunt:
    """What to search: the candidate, for how long, and how it is told meanwhile."""

    candidate: str
    device: str
    seconds: float
    seed: int = 0
    children: int = 2
    most: int | None = None
    say: Callable[[str], None] = print


@dataclass
class Found:
    """What came of it; ``statuses`` count the cases that were judged."""

    session: dict[str, Any]
    groups: Groups = field(default_factory=Groups)
    statuses: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    unexplained: Counter[str] = field(default_factory=Counter)
    declared: Counter[str] = field(default_factory=Counter)
    pairs: int = 0
    met: int = 0
    deaths: int = 0
    seconds: float = 0.0
    lost: str | None = None

    @property
    def judged(self) -> int:
        """How many cases were judged: asked, and not refused."""
        return self.statuses.total() - self.statuses["UNSUPPORTED"] - self.statuses["NOT-RUN"]


def search(hunt: Hunt) -> Found:
    """Search until the time is over. Raises UnavailableError for a candidate that cannot run."""
    return _Search(hunt).run()


class _Search:
    def __init__(self, hunt: Hunt) -> None:
        self.hunt = hunt
        first = Interview(hunt.candidate, hunt.device, hunt.seed)
        self.found = Found(first.open())
        self.interviews = [first]
        more = (Interview(hunt.candidate, hunt.device, hunt.seed) for _ in range(hunt.children - 1))
        self.interviews += more
        supports = frozenset(self.found.session["supports"])
        self.space = Space(supports, SIZES[hunt.device], hunt.seed)
        session = self.found.session
        self.subject = defects.Subject(
            candidate=hunt.candidate,
            version=session["version"],
            target=session["device"]["capability"],
            lse_on_empty_rows=session["lse_on_empty_rows"],
        )
        self.found.pairs = len(self.space.pairs)
        self.met: set[int] = set()
        self.numbers = count()
        self.finished = False
        self.failures: deque[tuple[int, Case, Answer]] = deque()
        self.counting = threading.Lock()
        # One at a time: the next failure often has the cause that is being found.
        self.looking = threading.Lock()
        self.stop = threading.Event()
        self.started = time.monotonic()

    def run(self) -> Found:
        with ThreadPoolExecutor(len(self.interviews)) as pool:
            threads = [pool.submit(self._work, interview) for interview in self.interviews]
            try:
                self._watch(threads)
            except KeyboardInterrupt:
                self.hunt.say("fuzz: interrupted; what was found so far follows")
                self.stop.set()
        for thread in threads:
            thread.result()
        self.found.unexplained.update(str(a.signatures[0]) for _, _, a in self.failures)
        self.found.met = len(self.met)
        self.found.groups.settle(self.interviews[0].ask)
        self.interviews[0].close()
        self.found.seconds = round(time.monotonic() - self.started, 1)
        self.found.deaths = sum(interview.deaths for interview in self.interviews)
        return self.found

    def _watch(self, threads: Sequence[Future[None]]) -> None:
        """Wait for the threads; say how far they are."""
        step = min(max(self.hunt.seconds / 12, 1.0), 10.0)
        while wait(threads, timeout=step).not_done:
            self.hunt.say(self._progress())

    def _progress(self) -> str:
        spent = time.monotonic() - self.started
        cases = self.found.statuses.total()
        failures = sum(group.count for group in self.found.groups.all) + len(self.failures)
        return (
            f"fuzz {self.hunt.candidate} {spent:.0f} s: {cases} cases, {cases / spent:.0f}/s, "
            f"{failures} failures of {len(self.found.groups.all)} causes"
        )

    def _left(self) -> float:
        return self.started + self.hunt.seconds - time.monotonic()

    def _work(self, interview: Interview) -> None:
        """Hunt until the time is over; of all threads one at a time looks at what was caught."""
        try:
            while not self.stop.is_set():
                if self.failures and self.looking.acquire(blocking=False):
                    with contextlib.suppress(IndexError):
                        self._look(interview, *self.failures.popleft())
                    self.looking.release()
                elif self._left() > 0 and not self.finished:
                    self._hunt(interview)
                elif not self.failures or self._left() < -GRACE:
                    break
                else:
                    time.sleep(0.05)
        except UnavailableError as error:
            self.found.lost = f"a fresh process of the candidate does not start: {error}"
            self.stop.set()
        except BaseException:
            self.stop.set()
            raise
        finally:
            interview.close()

    def _hunt(self, interview: Interview) -> None:
        """Ask the next case."""
        number = next(self.numbers)
        if self.hunt.most is not None and number >= self.hunt.most:
            self.finished = True
            return
        case = self.space.case(number)
        if case is None or self._spared(case):
            return
        answer = interview.ask(case)
        if answer.status == "HANG":
            # A busy machine or the interpreter is slow: only what the suite's limit ends hangs.
            answer = interview.ask(case, limit=CHECK_LIMIT[self.hunt.device])
        with self.counting:
            self.found.statuses[answer.status] += 1
            if answer.status in ("UNSUPPORTED", "NOT-RUN"):
                self.found.refusals[answer.text] += 1
            else:
                self.found.features.update(case.features)
                self.met |= {number // 2 % self.found.pairs} if number % 2 == 0 else set()
            if answer.status == "PASS" and (defect := self._defect(case, answer)):
                self.found.declared[defect] += 1
        if answer.failed:
            # A process that dies is the dearest to meet again.
            deadly = answer.signatures[0].status in DEADLY
            (self.failures.appendleft if deadly else self.failures.append)((number, case, answer))

    def _spared(self, case: Case) -> bool:
        """Return whether the process would die once more of what is known."""
        group = self.found.groups.deadly(case)
        if group is None or group.count < DEATHS_OF_A_KIND:
            return False
        group.skipped += 1
        return True

    def _defect(self, case: Case, answer: Answer) -> str | None:
        """Return the id of the known defect that an answer shows, or None."""
        outcome = Outcome(
            case=case, status=answer.status, findings=answer.findings, signal=answer.signal
        )
        return defects.name_of(self.subject, outcome)

    def _look(self, interview: Interview, number: int, case: Case, answer: Answer) -> None:
        """Find the group of a failure, or the smallest case of a new cause."""
        # Smaller cases may die of what is not even looked for: in a fork that costs little.
        ask = partial(interview.ask, forked=True)
        known = self.found.groups.explained(case, answer, ask)
        if known:
            known.count += 1
            return
        signature = answer.signatures[0]
        limit = time.monotonic() + SHRINKING
        answers = {case: answer}

        def fails(smaller: Case) -> bool:
            if signature.status not in DEADLY and self.found.groups.deadly(smaller):
                return False
            found = answers[smaller] = ask(smaller)
            return signature in found.signatures

        smallest = shrink(case, fails, lambda: time.monotonic() > limit)
        group = Group(signature, smallest, answers[smallest], number, case)
        group.defect = self._defect(smallest, group.answer)
        if self.found.groups.add(group) is group:
            self.hunt.say(f"fuzz: {signature}: {smallest.id}, {group.answer.text}")
        unexplained = sum(
            one.count for one in self.found.groups.all if one.signature.status in DEADLY
        )
        if unexplained > MOST_DEATHS:
            self.found.lost = f"gave up after {unexplained} deaths of the process"
            self.stop.set()
