"""Verbs that fix what a matrix or a conda environment leaves open."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from pinproof.clock import now
from pinproof.command import Asked, Verbs, option, switch
from pinproof.errors import ConfigurationError, ExitCode
from pinproof.options import root
from pinproof.verbs.shared import FILE, JSON, STORE, given, print_json

verbs = Verbs()


@verbs.verb(
    "lock",
    option("--matrix", metavar="NAME", help="the matrix; else every one that has a lock"),
    option("--axis", metavar="AXIS", default="", help="look up this axis only"),
    option("--cell", dest="cells", metavar="ID", action="append", help="only this cell's pins"),
    option(
        "--env",
        dest="names",
        metavar="ENV",
        action="append",
        help="only this conda environment of envs/; may be repeated",
    ),
    switch("--check", "change nothing: is the lock stale, and what moved?"),
    option("--python", metavar="X.Y", help="for whom; default: those of the lock, else this one"),
    option("--platform", metavar="NAME", help="such as x86_64-manylinux_2_28; default: as above"),
    *(FILE, JSON),
    examples=[
        "pinproof lock --matrix blackwell-release",
        "pinproof lock --matrix blackwell-nightly --axis torch",
        "pinproof lock --cell cpu-ccda2b",
        "pinproof lock --matrix hopper --python 3.12 --platform x86_64-manylinux_2_35",
        "pinproof lock --check",
        "pinproof lock --env cuda-13.0",
    ],
)
def lock(asked: Asked) -> ExitCode:
    """Fix what a matrix leaves open: nightlies, commits, every wheel by sha256.

    The lock is written to lockfiles/, to be committed; a run takes it from there. Where anything
    fails the old lock stands. Exit code: 2 a lock or an option is wrong, 4 an index could not be
    asked, 5 with --check, the lock is stale.
    """
    if asked.names:
        return _environments(asked)
    from pinproof.locks import verbs

    order = verbs.Order(
        matrix_file=given(asked.matrix_file, "matrix.toml"),
        matrix=asked.matrix or "",
        axis=asked.axis,
        cells=tuple(asked.cells or ()),
        python=asked.python or "",
        platform=asked.platform or "",
        check=asked.check,
    )
    document = verbs.lock(order, sys.stderr if asked.json else sys.stdout)
    if asked.json:
        print_json(document)
    return ExitCode(document["exit_code"])


@verbs.verb(
    "conda",
    option("action", metavar="lock|check|install", help="what to do with conda environments"),
    option("names", metavar="ENV", nargs="*", help="as in envs/; lock and check: default all"),
    option("--into", metavar="DIR", type=Path, help="install: where to"),
    option(
        "--with",
        dest="executable",
        metavar="EXE",
        default="",
        help="install: by conda-lock and conda, mamba or micromamba; else rattler installs",
    ),
    switch("--offline", "install: only what was downloaded before"),
    STORE,
    examples=[
        "pinproof conda lock cuda-13.0",
        "pinproof conda check",
        "pinproof conda install cuda-13.0 --into toolkit",
    ],
)
def conda(asked: Asked) -> ExitCode:
    """Lock conda environments by the bytes of every package, check the locks, install one.

    No conda is needed, nor the GPU that is locked for: the specification in envs/ declares it.
    Exit code: 2 a specification cannot be solved or a lock is damaged, 4 a channel cannot be read
    or a package is not the one of its lock, 5 with check, a lock is stale. The old lock stays.
    """
    from pinproof.locks.conda import verbs

    return verbs.conda(
        asked.action,
        asked.names,
        root=root(),
        store=given(asked.store, ".pinproof"),
        at=_at(),
        say=functools.partial(print, flush=True),
        into=asked.into,
        offline=asked.offline,
        executable=asked.executable,
    )


def _environments(asked: Asked) -> ExitCode:
    """Lock or check the conda environments of ``--env``: options of a matrix are refused."""
    from pinproof.locks.conda import verbs

    for name in ("matrix", "axis", "cells", "python", "platform"):
        if getattr(asked, name):
            word = "cell" if name == "cells" else name
            raise ConfigurationError(
                f"--env and --{word} do not go together: an environment is locked as envs/ has it",
                remedy=f"leave --{word} out, or lock the matrix in a call of its own",
            )
    told = functools.partial(print, file=sys.stderr if asked.json else sys.stdout, flush=True)
    document = verbs.survey(
        "check" if asked.check else "lock", asked.names, root=root(), at=_at(), say=told
    )
    if asked.json:
        print_json(document)
    return ExitCode(document["exit_code"])


def _at() -> str:
    return now()[:19] + "Z"
