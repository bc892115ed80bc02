"""Pinproof: the sessions. `nox -s matrix` is the main job; each cell can be run by its id."""

# Listing is paid by every nox call, so only the light part of the library is imported here; the
# heavy part runs in the environment of the session `host`. A PEP 723 block would install it into
# nox itself, but then each call would start nox twice.

from __future__ import annotations

import gc
import sys
from functools import partial
from pathlib import Path

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "src"))

from pinproof import sessions  # noqa: E402 - the path must be set first

nox.options.sessions = ["matrix"]
nox.options.reuse_venv = "yes"
nox.needs_version = ">=2026.10.20"

on_host = partial(nox.session, requires=["host"], venv_backend="none", default=False)


@nox.session(default=False)
def host(session: nox.Session) -> None:
    """The environment that plans, starts and reports; other sessions make it by themselves."""
    sessions.install_host(session, ROOT)


@on_host()
def matrix(session: nox.Session) -> None:
    """Prove every cell of a matrix: `nox -s matrix -- --help`."""
    sessions.pinproof(session, ROOT, "run", *session.posargs)


@nox.session(default=False)
def tests(session: nox.Session) -> None:
    """The project's tests, and its types and style."""
    sessions.install_group(session, ROOT, "lint", "test")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure the numbers that the docs claim: `nox -s bench -- [NAME]`."""
    sessions.install_group(session, ROOT, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


for verb, about in sessions.VERBS.items():
    on_host(name=verb)(sessions.for_verb(verb, about, ROOT))

for cell in sessions.cells(ROOT / "matrix.toml", sys.argv):
    on_host(name=cell.id)(sessions.for_cell(cell, ROOT))

gc.freeze()  # all of this stays: nox ends sooner without a look for garbage in it
