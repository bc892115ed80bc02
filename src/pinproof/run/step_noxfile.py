"""The noxfile of a lane of steps: registers the sessions that a step file describes.

The scheduler starts ``nox -f`` on this file, with ``PINPROOF_STEP`` naming the step file. Nox
makes (or reuses) the environments and runs the commands in them; nothing else of Pinproof is
imported here, since every child pays for what its noxfile imports.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nox
import nox.command


def run(session: nox.Session, step: Mapping[str, Any]) -> None:
    """Run the commands of a step, and leave the status of the last one in a file."""
    status = 0
    env = {**{name: os.environ[name] for name in step["secrets"]}, **step["env"]}
    try:
        for command in step["commands"]:
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
        Path(step["status"]).write_text(str(status), encoding="utf-8")


gc.freeze()  # nox and what it imports stay: a child ends a tenth sooner without a look at them

for described in json.loads(Path(os.environ["PINPROOF_STEP"]).read_text(encoding="utf-8"))[
    "sessions"
]:

    @nox.session(
        name=described["session"],
        python=described["python"],
        venv_backend=described["venv_backend"],
        venv_params=described["venv_params"],
        reuse_venv=True,
    )
    def session_of_a_step(session: nox.Session, step: Mapping[str, Any] = described) -> None:
        """Run a step."""
        run(session, step)
