"""The noxfile of one step: registers the single session that a step file describes.

The scheduler starts ``nox -f`` on this file, with ``PINPROOF_STEP`` naming the step file, once
for every step. Nox makes (or reuses) the environment and runs the commands in it; nothing else
of Pinproof is imported here, since every child pays for what its noxfile imports.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import nox
import nox.command

STEP = json.loads(Path(os.environ["PINPROOF_STEP"]).read_text(encoding="utf-8"))


@nox.session(
    name=STEP["session"],
    python=STEP["python"],
    venv_backend=STEP["venv_backend"],
    venv_params=STEP["venv_params"],
    reuse_venv=True,
)
def step(session: nox.Session) -> None:
    """Run the commands of the step, and leave the status of the last one in a file."""
    status = 0
    env = {**{name: os.environ[name] for name in STEP["secrets"]}, **STEP["env"]}
    try:
        for command in STEP["commands"]:
            session.run(
                *command,
                env=env,
                include_outer_env=False,
                external=True,
                interrupt_timeout=5.0,
                terminate_timeout=5.0,
            )
    except nox.command.CommandFailed as failure:
        status = failure.return_code if failure.return_code is not None else 127
        raise
    finally:
        Path(STEP["status"]).write_text(str(status), encoding="utf-8")
