"""Write what the documentation takes from the code and from committed results.

    python scripts/update_docs.py [--check]

A page says where with a pair of lines, ``<!-- generated:begin NAME -->`` and
``<!-- generated:end -->``; README.md has such a pair for the results of a GPU run. With
``--check`` nothing is written, and stale pages are an error. Needs Pinproof itself, as
``pip install -e .`` in a checkout gives it.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

from pinproof import cli
from pinproof.matrix import axis, facts, matrixfile, rules
from pinproof.plan.stage import TIMEOUTS
from pinproof.report import defects as known
from pinproof.report import report, results
from pinproof_cell import candidates
from pinproof_cell.judge import defects as naming

ROOT = Path(__file__).parent.parent
PAGES = "docs/*/*.md"
README = Path("README.md")
RUN = "hopper"

BLOCK = re.compile(r"(<!-- generated:begin ([a-z-]+) -->\n).*?(<!-- generated:end -->)", re.DOTALL)


def documents(root: Path = ROOT) -> dict[Path, str]:
    """Return every page that holds something generated, with the text that it should have."""
    pages = {}
    for path in sorted(root.glob(PAGES)):
        text = path.read_text(encoding="utf-8")
        if BLOCK.search(text):
            pages[path] = BLOCK.sub(_filled, text)
    readme = root / README
    text = readme.read_text(encoding="utf-8")
    pages[readme] = report.update_readme(text, RUN, run_table(root / "results" / RUN))
    return pages


def stale(root: Path = ROOT) -> list[Path]:
    """Return the pages whose text is not what the code and the results make of it."""
    pages = documents(root).items()
    return [path for path, text in pages if path.read_text(encoding="utf-8") != text]


def run_table(directory: Path) -> str:
    """Return the tables of the results under `directory`, each with where it was run."""
    found = [results.read(path) for path in sorted(directory.rglob("results.json"))]
    return "\n".join(map(_run, found)) or (
        "Not yet generated: no results of a GPU run are committed."
    )


def _run(document: Mapping[str, Any]) -> str:
    ran = sorted({cell["target"] for cell in document["cells"]} - set(document["not_run"]))
    told = [f"{target} was run" for target in ran]
    told += [f"{target} was not" for target in document["not_run"] if target != "cpu"]
    day = document["started"][:10]
    return f"**{'; '.join(told)}.** Matrix `{document['matrix']}`, {day}.\n\n" + report.markdown(
        document
    )


def _filled(match: re.Match[str]) -> str:
    return f"{match[1]}\n{_BLOCKS[match[2]]().strip()}\n\n{match[3]}"


def commands() -> str:
    """Return a section for each command: what it says of itself, and its options."""
    sections = []
    for name, parser in cli.command.verbs.items():
        taken = [each for each in parser._actions if each.dest != "help"]
        arguments = [each for each in taken if not each.option_strings]
        rows = [(_flags(each), str(each.help)) for each in taken if each.option_strings]
        words = ["pinproof", name, *(f"[{a.metavar}]" if a.nargs else a.metavar for a in arguments)]
        sections += [f"## pinproof {name}", "", "```", " ".join([*words, "[OPTIONS]"]), "```", ""]
        sections += [str(parser.description), "", "```"]
        sections += [line.strip() for line in str(parser.epilog).splitlines()[1:]] + ["```", ""]
        sections += [f"`{each.metavar}`: {each.help}.\n" for each in arguments]
        if rows:
            sections += [_table(("option", "meaning"), rows), ""]
    return "\n".join(sections)


def _flags(option: argparse.Action) -> str:
    metavar = f" {option.metavar}" if option.metavar else ""
    return ", ".join(f"`{flag}{metavar}`" for flag in option.option_strings)


def matrix_tables() -> str:
    """Return a section for each table of a matrix file, from its JSON Schema."""
    return "\n".join(_sections("The file itself", matrixfile.json_schema()))


def _sections(title: str, schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    rows, inner = [], []
    for key, value in schema["properties"].items():
        place, nested = _nested(title, key, value)
        default = "required" if key in required else _default(value)
        rows.append((f"`{key}`", _kind(value), default, value["description"]))
        if nested is not None:
            inner.append((place, nested))
    yield f"### {title}\n"
    yield _table(("key", "value", "default", "meaning"), rows) + "\n"
    for place, nested in inner:
        yield from _sections(place, nested)


def _nested(title: str, key: str, value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """Return the heading and the schema of a table within a table; None where it is none."""
    path = f"{title.strip('[]`')}.{key}" if title.startswith("`") else key
    for form, inner in (
        (f"`[{path}]`", value),
        (f"`[{path}.NAME]`", value.get("additionalProperties")),
        (f"`[[{path}]]`", value.get("items")),
    ):
        own = inner.get("properties", {}) if isinstance(inner, dict) else {}
        if any("description" in each for each in own.values()):
            return form, inner
    return "", None


def _kind(value: Mapping[str, Any]) -> str:
    if "anyOf" in value:
        return " or ".join(map(_kind, value["anyOf"]))
    if "enum" in value:
        return " or ".join(f"`{word}`" for word in value["enum"])
    if value["type"] == "array":
        return f"list of {_kind(value['items'])}"
    if value["type"] == "object":
        inner = value.get("additionalProperties")
        if not isinstance(inner, dict):
            inner = next(iter(value["properties"].values()))
            return "table" if "description" in inner else f"table of {_kind(inner)} by name"
        return f"table of {_kind(inner)} by name"
    least = value.get("exclusiveMinimum")
    return f"{value['type']} above {least:g}" if least is not None else str(value["type"])


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    return "" if default in (None, "", []) else f"`{json.dumps(default)}`"


def axis_kinds() -> str:
    """Return which kinds of value each axis takes, and what it is where it is left out."""
    rows = []
    for name in axis.AXES:
        kinds = ", ".join(kind for kind in axis.Kind if kind in axis.KINDS[name])
        left_out = "the running Python" if name == "python" else axis.implied(name)
        rows.append((f"`{name}`", kinds, "must be there" if name == "torch" else left_out))
    return _table(("axis", "kinds of value", "left out"), rows)


def stages() -> str:
    """Return the stages with the seconds after which each counts as hung."""
    return _table(
        ("stage", "timeout in seconds"),
        [(f"`{stage}`", f"{seconds:g}") for stage, seconds in TIMEOUTS.items()],
    )


def words() -> str:
    """Return the facts that a condition can ask for."""
    tables = {
        "torch": facts.Torch,
        "cuda": facts.Cuda,
        "triton": facts.Triton,
        "flash_attn": facts.FlashAttn,
        "vllm": facts.Vllm,
    }
    rows = [
        (f"`{name}.{field.name}`", field.metadata["about"])
        for name, kind in tables.items()
        for field in fields(kind)
        if field.name != "versions"
    ]
    return _table(("fact", "meaning"), rows)


def exclusions() -> str:
    """Return every rule that excludes, in the order in which the first one is named."""
    return "\n".join(map(_rule, _rules()["rule"]))


def requirements() -> str:
    """Return every rule that adds requirements."""
    return "\n".join(map(_rule, _rules()["require"]))


def _rules() -> dict[str, Any]:
    return tomllib.loads(rules.SHIPPED.read_text(encoding="utf-8"))


def _rule(rule: Mapping[str, Any]) -> str:
    added = ", ".join(f"`{text}`" for text in rule.get("requirements", ()))
    lines = [f"### {rule['id']}", "", f"{rule['reason']}.", ""]
    lines += [f"    {line.strip()}" for line in rule["when"].splitlines()]
    lines += ["", f"Adds {added}.", ""] if added else [""]
    return "\n".join([*lines, f"Source: {rule['source']}.", ""])


def defects() -> str:
    """Return a section for each known defect of the kernels under test."""
    sections = []
    for entry in known.document()["defects"]:
        sections += [f"### {entry['id']}", "", f"{entry['title']}.", ""]
        sections += [_table(("what", ""), list(known.facts(entry).items())), ""]
    return "\n".join(sections)


def _table(head: tuple[str, ...], rows: Sequence[Sequence[str]]) -> str:
    escaped = [[text.replace("|", "&#124;") for text in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ("---",) * len(head), *escaped])


def kernels() -> str:
    """Return a section for each file of candidates: what it says, and what each of them admits."""
    sections = []
    for name, some in groupby(candidates.known(), key=lambda found: type(found).__module__):
        found = list(some)
        rows = [(f"`{each.name}`", each.origin, ", ".join(sorted(each.supports))) for each in found]
        told = inspect.getdoc(sys.modules[name])
        table = _table(("candidate", "comes with", "admits"), rows)
        sections += [f"## {', '.join(each.name for each in found)}\n", f"{told}\n", f"{table}\n"]
    return "\n".join(sections)


def judged() -> str:
    """Return what the full suite said of each candidate, named by today's defects."""
    rows = [
        _judged(each, json.loads(path.read_text(encoding="utf-8")))
        for each in candidates.known()
        for path in sorted((ROOT / "results" / "attention").glob(f"*/{each.name}.json"))
    ]
    return _table(("candidate", "machine", "PASS", "refused", "wrong", "what it shows"), rows)


def _judged(candidate: candidates.Candidate, found: Mapping[str, Any]) -> tuple[str, ...]:
    subject = naming.Subject(
        candidate=candidate.name,
        version=found["version"],
        target=found["device"]["capability"],
        lse_on_empty_rows=candidate.lse_on_empty_rows,
    )
    shown = [each for each in naming.account(subject, found["cases"]) if each["cases"]]
    named = {case for each in shown for case in each["cases"]}
    counts = Counter(each["status"] for each in found["cases"])
    right, refused = counts.pop("PASS", 0), counts.pop("UNSUPPORTED", 0)
    wrong = [each["id"] for each in found["cases"] if each["status"] in counts]
    links = [f"[{each['id']}](../reference/defects.md#{each['id']})" for each in shown]
    return (
        f"{candidate.name} {found['version']}",
        found["device"]["name"],
        *map(str, (right, refused)),
        ", ".join(f"{count} {status}" for status, count in counts.items()),
        ", ".join(links + [f"`{case}`" for case in wrong if case not in named]),
    )


_BLOCKS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "matrix": matrix_tables,
    "axes": axis_kinds,
    "stages": stages,
    "facts": words,
    "rules": exclusions,
    "requires": requirements,
    "defects": defects,
    "candidates": kernels,
    "judged": judged,
}


def main() -> None:
    """Write the generated parts of the documentation; with --check only look for stale ones."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a page is stale")
    check = parser.parse_args().check
    wrong = stale()
    if check and wrong:
        names = ", ".join(str(path.relative_to(ROOT)) for path in wrong)
        sys.exit(f"stale: {names}\n  next step: python scripts/update_docs.py")
    for path in wrong:
        path.write_text(documents()[path], encoding="utf-8")
        print(f"written {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
