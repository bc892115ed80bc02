"""What a log says went wrong: the catalogue of known failures, and the first error otherwise."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources

from pinproof.plan.stage import Stage

#: From what explains a failure to what merely accompanies it.
SEVERITIES = ("fail", "invalid", "silent", "warn", "slow", "generic")

#: Where in the catalogue a stage looks; what the machine is to blame for counts at every stage.
_KINDS: dict[Stage, tuple[str, ...]] = {
    Stage.RESOLVE: ("resolve",),
    Stage.BUILD: ("resolve", "build", "link", "import"),
    Stage.INSTALL: ("resolve", "build", "link", "install"),
    Stage.INSPECT: ("import", "runtime"),
    Stage.CORRECTNESS: ("import", "runtime", "numerics", "slow"),
    Stage.THROUGHPUT: ("import", "runtime", "numerics", "slow"),
    Stage.SANITIZE: ("import", "runtime"),
}

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_FRAME = " \t│├╰─▶\u00d7"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One entry of the catalogue; ``regex`` is searched for in the text of a log."""

    id: str
    stage: str
    severity: str
    regex: re.Pattern[str]
    sample: str
    cause: str
    remedy: str
    source: str = ""
    blame: str = "combination"

    @property
    def leaves_no_log(self) -> bool:
        """True for a defect that no log shows: the entry is there for people to read."""
        return self.regex.pattern.startswith("NO_LOG_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A known failure found in a log, and the ``line`` that shows it."""

    failure: Failure
    line: str

    @property
    def is_machine(self) -> bool:
        """True where the machine, network or disk is to blame, not the combination."""
        return self.failure.blame == "machine"

    @property
    def explains(self) -> bool:
        """True where the finding is a reason to fail, not a warning, a detour or a wrapper."""
        return self.failure.severity in ("fail", "invalid")


@functools.cache
def catalogue() -> tuple[Failure, ...]:
    """Return the known failures that ship with Pinproof, the specific before the generic."""
    text = resources.files("pinproof").joinpath("data/failures.toml").read_text(encoding="utf-8")
    return tuple(
        Failure(**{**entry, "regex": re.compile(entry["regex"])})
        for entry in tomllib.loads(text)["failure"]
    )


def plain(text: str) -> str:
    """Return `text` as one line without what could steer a terminal: escapes, controls, bidi."""
    # A line that overwrote itself, as progress bars do, reads as its last version.
    text = _ANSI.sub("", text).strip().rsplit("\r", 1)[-1]
    return " ".join(_CONTROL.sub("", text.replace("\n", " ").replace("\t", " ")).split())


def lookup(failure_id: str) -> Failure | None:
    """Return the catalogue's entry with that id, or None."""
    return next((entry for entry in catalogue() if entry.id == failure_id), None)


def triage(text: str, stage: Stage) -> Finding | None:
    """Return the known failure that best explains a failed stage's log, or None."""
    return next(iter(findings(text, stage)), None)


def findings(text: str, stage: Stage | None = None) -> list[Finding]:
    """Return every known failure in a log, the one that best explains it first.

    The most severe wins; among equals the earliest in the log, because what follows is mostly its
    consequence; on one line the one that stands first in the catalogue. `stage` is whose log it
    is; None where that is not known, and every entry may be met.
    """
    text = _ANSI.sub("", text)
    found: list[tuple[int, int, int, Finding]] = []
    for rank, failure in enumerate(catalogue()):
        elsewhere = stage is not None and failure.stage not in _KINDS[stage]
        if failure.leaves_no_log or (failure.blame != "machine" and elsewhere):
            continue
        if match := failure.regex.search(text):
            start = text.rfind("\n", 0, match.start()) + 1
            end = text.find("\n", match.end())
            line = _tidy(text[start : end if end >= 0 else len(text)])
            order = SEVERITIES.index(failure.severity), start, rank
            found.append((*order, Finding(failure=failure, line=line)))
    return [finding for *_, finding in sorted(found, key=lambda item: item[:3])]


def reason(text: str, stage: Stage) -> str:
    """Return one line that says why a stage failed: its first known or visible error.

    A known failure ends with its id in brackets, as in ``... [B01]``; see `lookup`.
    """
    finding = triage(text, stage)
    if finding is not None and finding.explains:
        return f"{finding.line} [{finding.failure.id}]"
    return first_error(text).split("\n")[0]


def _tidy(line: str) -> str:
    """Strip what frames a message: box characters, labels and repeated blanks."""
    line = line.strip().strip(_FRAME)
    line = re.sub(r"^(?:cause:|nox > |pinproof: )\s*", "", line)
    return re.sub(r"\s+", " ", line)[:400]


#: A line that states an error. Names as "error.cc.o", "-Werror" and "0 errors" do not.
_ERROR = re.compile(
    r"(?:^|[\s:(\[])(?:fatal )?(?:error|ERROR|Error|FATAL|FAILED|fatal)(?:\s*:|\s+at\s|\s+\d+:)"
    r"|^[\w.]*(?:Error|Exception|Interrupt)(?::|$)"
    r"|(?i:undefined symbol|undefined reference|segmentation fault|core dumped|cannot open shared)"
    r"|command not found|No such file or directory|not supported|Killed$"
    r"|^pinproof: \S"  # a command of ours, such as the one for conda packages
)

#: A line that only says that something else failed. It is never a reason while another is there.
_WRAPPER = re.compile(
    r"(?i)exit(?:ed)?[ -](?:with )?(?:code|status)|exited with \d|non-zero exit|returned \d+$"
    r"|exit \d+$|subprocess-exited-with-error|failed building wheel|could not build wheels"
    r"|build stopped: subcommand failed|failed to build|metadata-generation-failed"
    r"|see above|note: this error originates|^make.*\*\*\*|^FAILED: (?:\[code=\d+\] )?\S+\.o\b"
    r"|no solution found when resolving dependencies|request failed after \d+ retries"
    r"|error compiling objects|engine core initialization failed"
    r"|^fatal python error|^during handling of|^traceback \(most recent"
)


def first_error(text: str, *, limit: int = 3) -> str:
    """Return the first error lines of a log, at most `limit`; never "failed with exit code 1".

    Without any error line it is the last line that says something, else a sentence saying that
    the log holds nothing.
    """
    raw = [line.rstrip() for line in _ANSI.sub("", text).splitlines()]
    errors: list[str] = []
    for number, line in enumerate(raw):
        stripped = line.strip().strip(_FRAME)
        if re.match(r"(?:cause|Caused by)\b", stripped) or _ERROR.search(stripped):
            message = _tidy(_with_body(raw, number))
            if not _WRAPPER.search(message) and message not in errors:
                errors.append(message)
    if errors:
        return "\n".join(errors[:limit])
    said = [_tidy(line) for line in raw if re.search(r"\w", line)]
    told = [line for line in said if not _WRAPPER.search(line)]
    if told:
        return told[-1]
    return "the log holds no message" if said else "the log is empty"


def _with_body(raw: list[str], number: int) -> str:
    """Join a line that only announces ("CMake Error at ...:") with the indented line below it."""
    line = raw[number].strip().strip(_FRAME)
    below = raw[number + 1 : number + 2]
    announces = line.endswith(":") or re.match(r"CMake Error at .*\(\w+\):", line)
    if announces and below and below[0][:1].isspace() and below[0].strip():
        return f"{line} {below[0].strip()}"
    return line
