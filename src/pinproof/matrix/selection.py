"""Which cells a run is about: a matrix, and what the user chose of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pinproof.errors import ConfigurationError, NothingRanError, did_you_mean
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile, rules
from pinproof.matrix.cell import Cell
from pinproof.matrix.matrixfile import Matrix, MatrixFile
from pinproof.options import Options
from pinproof.run.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A matrix with the cells of it that a run is about, the excluded ones among them."""

    file: MatrixFile
    matrix: Matrix
    cells: tuple[Cell, ...]

    @property
    def tried(self) -> tuple[Cell, ...]:
        """The cells that no rule excludes."""
        return tuple(cell for cell in self.cells if cell.exclusion is None)

    @property
    def required(self) -> frozenset[str]:
        """The ids of the cells that the policy wants to be SAFE."""
        wanted = self.matrix.policy.require
        return frozenset(
            cell.id for cell in self.tried if wanted == "all" or cells.matches(cell, wanted)
        )


def make(options: Options, machine: Machine) -> Selection:
    """Read the matrix file and choose.

    Raises ConfigurationError for anything wrong in the file or in the choice, NothingRanError
    where no matrix is meant for this machine.
    """
    file = matrixfile.load(options.matrix_file)
    matrix = _matrix(file, options, machine)
    if options.sanitize:
        matrix = matrix.sanitized()
    known = tuple(_on_this_machine(cell, machine) for cell in cells.expand(matrix))
    chosen: Sequence[Cell] = cells.select(known, options.select)
    if options.cells:
        chosen = _by_id(chosen, options.cells)
    return Selection(file=file, matrix=matrix, cells=tuple(chosen))


def _matrix(file: MatrixFile, options: Options, machine: Machine) -> Matrix:
    if options.matrix is not None:
        return file.named(options.matrix)
    if options.cells:
        # An id says by itself which matrix it is of.
        for matrix in file.matrices:
            if set(options.cells) <= {cell.id for cell in cells.expand(matrix)}:
                return matrix
    return default_matrix(file, machine)


def default_matrix(file: MatrixFile, machine: Machine) -> Matrix:
    """Return the matrix for `machine`. Raises NothingRanError where the file has none."""
    found = file.default_for(machine.target)
    if found is None:
        names = ", ".join(matrix.name for matrix in file.matrices)
        raise NothingRanError(
            f"no matrix is the default for {machine.target}, which this machine is",
            remedy=f"name one with --matrix: {names}",
        )
    return found


def _on_this_machine(cell: Cell, machine: Machine) -> Cell:
    """Apply the rules that need the driver, gcc or glibc, where the cell is for this machine."""
    if cell.exclusion is not None or cell.target != machine.target:
        return cell
    exclusion = rules.shipped().of_machine.check(cell, machine.versions)
    return replace(cell, exclusion=exclusion) if exclusion else cell


def _by_id(chosen: Sequence[Cell], wanted: Sequence[str]) -> list[Cell]:
    known = {cell.id: cell for cell in chosen}
    for cell_id in wanted:
        if cell_id not in known:
            raise ConfigurationError(
                f"there is no cell {cell_id[:60]!r} among {len(known)}."
                f"{did_you_mean(cell_id[:60], known)}",
                remedy="`pinproof expand` lists the cells",
            )
    return [known[cell_id] for cell_id in dict.fromkeys(wanted)]
