"""Verbs about wheels and logs: what is in a wheel, building one, why it failed."""

from __future__ import annotations

import functools
from pathlib import Path

from pinproof.command import Asked, Verbs, option, switch
from pinproof.errors import ExitCode
from pinproof.plan.stage import Stage
from pinproof.verbs.shared import JSON, STORE, Document, given, json_file, print_json

verbs = Verbs()


@verbs.verb(
    "audit",
    option("subjects", metavar="SUBJECT", nargs="+", help="wheel, directory or requirement"),
    option("--arch", metavar="GPU", default="sm_120", help="such as sm_90; default: sm_120"),
    option("--torch", metavar="SUBJECT", default="", help="the torch to compare symbols with"),
    switch("--load", "load each library in a child of the environment"),
    switch("--compare", "ask cuobjdump about each library too"),
    option(
        "--python", metavar="X.Y", default="", help="whom wheels are fetched for; else this Python"
    ),
    option(
        "--platform",
        metavar="NAME",
        default="x86_64-manylinux_2_35",
        help="whom wheels are fetched for",
    ),
    json_file("the findings"),
    examples=[
        "pinproof audit vllm==0.33.0 --torch torch==2.14.0",
        "pinproof audit dist/flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl --arch sm_90",
        "pinproof audit .nox/sm120-9c2d7b --load --json audit.json",
    ],
)
def audit(asked: Asked) -> ExitCode:
    """Say which GPU code the shared libraries of a wheel, directory or environment hold.

    No GPU is needed, and nothing is installed. Statuses: NATIVE has machine code for the GPU,
    PTX-JIT is compiled by the driver, NONE has neither, NO-GPU-CODE is for the processor alone.
    Exit code: 0 everything could be read, 1 a library is cut off, lacks symbols, does not
    load, or cuobjdump reads it otherwise.
    """
    from pinproof.audit import arch as archs
    from pinproof.audit import audit as audits
    from pinproof.audit import listing
    from pinproof.locks.download import Target, this_python

    order = audits.Order(
        gpu=archs.parse(asked.arch),
        target=Target(python=asked.python or this_python(), platform=asked.platform),
        torch=asked.torch,
        load=asked.load,
        compare=asked.compare,
    )
    document = Document.at(asked.json, map(Path, [*asked.subjects, asked.torch]))
    out = document.beside
    found = audits.run(
        asked.subjects, order, lambda each: print(listing.text(each), end="\n\n", file=out)
    )
    document.write(audits.document(found))
    return audits.exit_code(found)


@verbs.verb(
    "build",
    option("project", metavar="PROJECT", nargs="?", default="", help="flash-attn or vllm"),
    option(
        "source",
        metavar="SOURCE",
        nargs="?",
        default="",
        help="version, git+URL@REF, tree, or source archive",
    ),
    option("--arch", metavar="GPU", default="sm_120", help="such as sm_90; default: sm_120"),
    option("--profile", metavar="NAME", default="stock", help="stock, serving or custom"),
    option("--python", metavar="EXE", type=Path, required=True, help="has the torch to build for"),
    option("--cuda", metavar="X.Y", default="", help="the toolkit; else the one that is here"),
    option("--without", metavar="FEATURE", action="append", help="leave out; may be repeated"),
    option("--patch", metavar="FILE", type=Path, action="append", help="may be repeated"),
    option("--env", metavar="NAME=VALUE", action="append", help="may be repeated"),
    option("--attention", metavar="SOURCE", default="", help="vLLM: its FlashAttention's source"),
    option("-j", "--jobs", metavar="N", type=int, help="compilers side by side"),
    option("--order", metavar="FILE", type=Path, help="a build as JSON, in place of the rest"),
    switch("--offline", "no network"),
    option("--wheelhouse", metavar="DIR", type=Path, help="the only place a release comes from"),
    json_file("how the wheel came to be"),
    STORE,
    examples=[
        "pinproof build flash-attn 2.8.3.post2 --arch sm_90 --profile serving --python python3",
        "pinproof build flash-attn git+https://github.com/Dao-AILab/flash-attention@main"
        " --python .nox/sm120/bin/python",
    ],
)
def build(asked: Asked) -> ExitCode:
    """Build one wheel from source, audit it, and keep it in the cache.

    A build that was stopped goes on where it was. Exit code: 1 it does not build, 2 the source or
    an option is wrong, 4 the machine, the network or the disk failed.
    """
    from pinproof.builds import verbs
    from pinproof.locks import installer as installers
    from pinproof.locks import wheelhouse

    store = given(asked.store, ".pinproof")
    read = [asked.order, asked.python, Path(asked.source), *(asked.patch or ())]
    document = Document.at(asked.json, (each for each in read if each is not None))
    say = functools.partial(print, flush=True, file=document.beside)
    house = wheelhouse.load(asked.wheelhouse) if asked.wheelhouse else None
    installer = installers.installer(offline=asked.offline, house=house)
    with verbs.refusing():
        wanted = (
            verbs.ordered(asked.order)
            if asked.order
            else verbs.described(
                asked.project,
                asked.source,
                arch=asked.arch,
                profile=asked.profile,
                python=asked.python,
                cuda=asked.cuda,
                without=asked.without or (),
                patches=asked.patch or (),
                env=asked.env or (),
                attention=asked.attention,
                installer=installer,
            )
        )
        told, record = verbs.build(
            wanted, store, asked.python, say, installer=installer, jobs=asked.jobs
        )
    say(told)
    document.write(record)
    return ExitCode.OK


@verbs.verb(
    "cache",
    option(
        "action", metavar="list|verify|prune", help="what to do with the wheels that were built"
    ),
    option("--days", metavar="N", type=float, default=30.0, help="prune: unused for so long"),
    STORE,
    JSON,
    examples=["pinproof cache verify", "pinproof cache prune --days 7"],
)
def cache(asked: Asked) -> ExitCode:
    """List the wheels that were built, check their bytes, or remove what is not used.

    A wheel that is not the one that was built is put into quarantine. Exit code: 1 there was one.
    """
    from pinproof.builds import verbs

    told = verbs.cache(asked.action, given(asked.store, ".pinproof"), asked.days)
    if asked.json:
        print_json(told.document)
    else:
        print(*told.lines, sep="\n")
    return ExitCode.OK if told.well else ExitCode.UNSAFE


@verbs.verb(
    "triage",
    option("logs", metavar="LOG", nargs="+", type=Path, help="what a build or a run printed"),
    option("--stage", metavar="STAGE", help="whose log it is; else every known failure counts"),
    json_file("what was found"),
    examples=["pinproof triage .pinproof/logs/sm120-9c2d7b/inspect.log", "pinproof triage *.log"],
)
def triage(asked: Asked) -> ExitCode:
    """Say which known failures logs hold, with cause and next step.

    Of an unknown failure the first lines that state an error are told. Exit code: 0 every log is
    explained by a known failure, 1 one is not.
    """
    from pinproof.judge import logs

    document = Document.at(asked.json, asked.logs)
    found = logs.read(asked.logs, Stage.parse(asked.stage) if asked.stage else None)
    print(*(each.text() for each in found), sep="\n\n", file=document.beside)
    document.write(logs.document(found))
    return ExitCode.OK if all(each.is_known for each in found) else ExitCode.UNSAFE
