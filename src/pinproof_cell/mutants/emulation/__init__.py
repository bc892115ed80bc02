"""A correct attention kernel, emulated step by step in torch so that each step can be broken.

float32 throughout, P rounded to the input type, an online softmax over tiles of keys, one rounding
of the output: the arithmetic of FlashAttention-2 (Dao, 2023) without its speed. The backward takes
P again from the log-sum-exp, and rounds P, dS and each gradient once. A mutant replaces one step
and leaves the others alone.
"""

from __future__ import annotations

from pinproof_cell.mutants.emulation.gradient import Backward
from pinproof_cell.mutants.emulation.kernel import HONEST, Kernel, changed
from pinproof_cell.mutants.emulation.memory import Memory
from pinproof_cell.mutants.emulation.problem import Problem

__all__ = ["HONEST", "Backward", "Kernel", "Memory", "Problem", "changed"]
