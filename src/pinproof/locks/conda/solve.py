"""From a specification to exact packages, by the child that has rattler."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pinproof.errors import ConfigurationError, InfrastructureError, PinproofError
from pinproof.locks.conda import child, lockfile
from pinproof.locks.conda.lockfile import Package
from pinproof.locks.conda.spec import Environment
from pinproof.locks.redact import redact, without_secrets
from pinproof.run import process

#: Seconds that one solution may take; conda-forge's index is 50 MB at first.
LONGEST = 900.0

#: How much of the solver's explanation is told, in lines.
LINES = 12

#: What a virtual package says of the machine, and where a matrix names that.
MEANING = {
    "__cuda": "the CUDA that the driver of the target supports, as the cuda axis needs it",
    "__cuda_arch": "the compute capability of the target: 12.0 for sm_120",
    "__glibc": "the C library of the target machine",
    "__archspec": "the processor of the target machine",
    "__linux": "the kernel of the target machine",
}

_MISSED = re.compile(r"(__[a-z0-9_]+)([^,\n]*), for which no candidates were found")


def solve(asked: Environment, platform: str) -> tuple[Package, ...]:
    """Return the exact packages of `asked` on a platform, for the machine that it declares.

    Raises ConfigurationError where no set of packages fits, with the solver's own reason and the
    virtual package that it names; InfrastructureError where a channel cannot be read.
    """
    virtual = asked.virtual_packages(platform)
    answer = _answer(
        {
            "channels": asked.channels,
            "dependencies": asked.dependencies,
            "platform": platform,
            "virtual": virtual,
        }
    )
    if "error" in answer:
        raise _refusal(asked, platform, virtual, str(answer["error"]), str(answer["text"]))
    found = [_package(each, platform) for each in answer["packages"]]
    for each in found:
        if not lockfile.is_address(each.url):
            raise ConfigurationError(
                f"{each} cannot be locked: its channel gives no address of a package:"
                f" {redact(each.url)[:200]}"
            )
        if not each.sha256 or not each.md5:
            raise ConfigurationError(
                f"{each} cannot be locked: its channel gives no md5 and sha256 of it",
                remedy="index that channel anew, or use another",
            )
    return tuple(sorted(found))


def gone(asked: Environment, lock: Path, platform: str) -> list[str]:
    """Say of each package of a lock on a platform that is no longer to be had, why.

    What the channels of `asked` list is; of what they do not, the address that is locked decides.
    Raises InfrastructureError where a channel cannot be read.
    """
    order = {"channels": asked.channels, "platform": platform, "lock": str(lock)}
    answer = _answer(order, "gone")
    if "error" in answer:
        raise _refusal(asked, platform, {}, str(answer["error"]), str(answer["text"]))
    return [str(each) for each in answer["gone"]]


def _answer(order: Mapping[str, Any], verb: str = "solve") -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pinproof-conda-") as scratch:
        asked, out = Path(scratch, "order.json"), Path(scratch, "answer.json")
        asked.write_text(json.dumps(order), encoding="utf-8")
        command = child.command(verb, str(asked), str(out))
        done = process.run(command, env=child.environment(), timeout=LONGEST)
        if done.timed_out:
            raise InfrastructureError(f"the solver did not end within {LONGEST:.0f} s")
        try:
            answer = json.loads(out.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            lines = redact(done.output).strip().splitlines() or ["it said nothing"]
            raise InfrastructureError(
                f"the solver ended with status {done.returncode}",
                cause=lines[-1][:200],
                remedy="pip install py-rattler" if "rattler" in lines[-1] else "",
            ) from None
    return dict(answer)


def _package(entry: Mapping[str, Any], platform: str) -> Package:
    return Package(
        name=entry["name"],
        version=entry["version"],
        build=entry["build"],
        platform=platform,
        url=without_secrets(entry["url"]),
        md5=entry["md5"],
        sha256=entry["sha256"],
        depends=tuple(sorted(entry["depends"].items())),
    )


def _refusal(
    asked: Environment, platform: str, virtual: Mapping[str, str], kind: str, text: str
) -> PinproofError:
    told = _trimmed(text)
    match kind:
        case "unsolvable":
            return ConfigurationError(
                f"{asked.file} cannot be solved for {platform}{_blame(text, virtual)}",
                cause=told,
                remedy=f"change the dependencies or the virtual packages of {asked.file}",
            )
        case "spec":
            return ConfigurationError(
                f"{asked.file} has a dependency that is no spec of conda", cause=told
            )
        case "channel":
            return ConfigurationError(f"{asked.file} names a channel that is none", cause=told)
    return InfrastructureError(
        f"a channel of {asked.file} cannot be read: {', '.join(asked.channels)}",
        cause=told,
        remedy="check the network and the channel's name; the lock is left as it was",
    )


def _blame(text: str, virtual: Mapping[str, str]) -> str:
    """Name the virtual packages that the solver missed, and what was declared of each."""
    reasons = []
    for name, spec in dict(_MISSED.findall(text)).items():
        has = f"declares {name} {virtual[name]}" if name in virtual else f"declares no {name}"
        meaning = f" ({MEANING[name]})" if name in MEANING else ""
        reasons.append(f"{name}{spec} is needed{meaning}, and it {has}")
    return f": {'; '.join(reasons)}" if reasons else ""


def _trimmed(text: str) -> str:
    lines = [line for line in redact(text).strip().splitlines() if line.strip()]
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"... and {len(lines) - LINES} more lines"]
    return "\n    ".join(line[:200] for line in lines)
