"""The projects that the tests share: one host environment, and one cell that is proven for real."""

from __future__ import annotations

import pytest
from checkouts import CELL, Project, copy_project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose host environment is made, as any first `nox` call makes it."""
    made = copy_project(tmp_path_factory.mktemp("project"))
    ended = made.nox("-s", "host")
    assert ended.code == 0, ended.text
    return made


@pytest.fixture(scope="session")
def proven(project: Project) -> Project:
    """The project after a real run of one cell."""
    if not project.first:
        project.first.append(project.matrix("--matrix", "cpu", "--cell", CELL))
    return project
