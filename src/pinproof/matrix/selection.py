"""Which cells a run is about: a matrix, and what the user chose of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
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
        chosen = _by_id(chosen, options, file, known)
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


def _by_id(
    chosen: Sequence[Cell], options: Options, file: MatrixFile, every: Sequence[Cell]
) -> list[Cell]:
    known = {cell.id: cell for cell in chosen}
    for cell_id in options.cells:
        if cell_id not in known:
            raise _missing(cell_id, known, options, file, {cell.id for cell in every})
    return [known[cell_id] for cell_id in dict.fromkeys(options.cells)]


def _missing(
    wanted: str, known: Iterable[str], options: Options, file: MatrixFile, every: Set[str]
) -> ConfigurationError:
    """Say why a cell is not among those that are chosen."""
    if wanted in every:
        return ConfigurationError(
            f"--select {options.select[:200]!r} leaves out the cell {wanted}",
            remedy="name the cell alone, or another condition",
        )
    for matrix in file.matrices:
        if any(cell.id == wanted for cell in cells.expand(matrix)):
            return ConfigurationError(
                f"the cell {wanted} is of the matrix {matrix.name}, and not among those chosen",
                remedy=f"add --matrix {matrix.name}, or leave --matrix out",
            )
    return ConfigurationError(
        f"there is no cell {wanted[:60]!r} in any matrix.{did_you_mean(wanted[:60], known)}",
        remedy=cells.LISTED,
    )
