"""What the runs of a calibration come to: maxima and quantiles, histograms, and thresholds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pinproof_cell.calibration.law import LAWS, expected
from pinproof_cell.judge.thresholds import Thresholds

#: What says nothing of a kernel: it refused, or the machine or somebody ended its process.
NO_RUNS = ("UNSUPPORTED", "NOT-RUN")
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
#: Bins of a histogram, from 0 to the limit of the statistic.
BINS = 40
#: A threshold is this times the largest value that a right kernel reached.
MARGIN = 1.5

Run = Mapping[str, Any]
Values = dict[str, list[float]]


def limits(frozen: Thresholds) -> dict[str, float]:
    """Return from where on each statistic is not that of a right kernel.

    A share is one of a limit that depends on the case, or of a tolerance.
    """
    forward = {key: frozen.degraded[key] for key in ("max_z", "row_rms", "rms")}
    shares = dict.fromkeys(("bias_share", "beta_share", "lse_error"), 1.0)
    backward = {
        f"{name}_{key}": limit
        for name in ("dq", "dk", "dv")
        for key, limit in frozen.backward_degraded.items()
    }
    return forward | shares | backward


def kernels(runs: Sequence[Run], known: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return, by kernel and type, how many runs there were and what each statistic reached."""
    names = list(known)
    found: dict[str, dict[str, Any]] = {}
    for kernel in dict.fromkeys(run["kernel"] for run in runs):
        mine = [run for run in runs if run["kernel"] == kernel]
        found[kernel] = {
            dtype: _one([run for run in mine if run["dtype"] == dtype], names)
            for dtype in sorted({run["dtype"] for run in mine})
        }
    return found


def _one(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    values = collected(runs, names)
    return {
        "runs": len(runs),
        "rejected": sum(run["status"] != "PASS" for run in runs),
        "statistics": {name: quantiles(some) for name, some in values.items() if some},
    }


def collected(runs: Sequence[Run], names: Sequence[str]) -> Values:
    """Return the values of each statistic over `runs`."""
    return {name: [run["stats"][name] for run in runs if name in run["stats"]] for name in names}


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return the quantiles of `values`, each one of them (the nearest above)."""
    ordered = sorted(values)
    return {
        name: short(ordered[max(math.ceil(share * len(ordered)) - 1, 0)])
        for name, share in QUANTILES.items()
    }


def histograms(runs: Sequence[Run], known: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return, by statistic and kernel, how many runs fall into each bin from 0 to the limit.

    One more bin at the end counts what lies above. ``law`` is how many of all runs would lie there
    by `law`, where there is one for the statistic.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, limit in known.items():
        some = [run for run in runs if name in run["stats"]]
        if not some:
            continue
        counts: dict[str, list[int]] = {}
        for run in some:
            mine = counts.setdefault(run["kernel"], [0] * (BINS + 1))
            mine[min(int(run["stats"][name] / limit * BINS), BINS)] += 1
        found[name] = {"limit": limit, "kernels": counts}
        if name in LAWS:
            edges = [limit * place / BINS for place in range(BINS + 1)]
            sizes = Counter(tuple(run["size"]) for run in some if all(run["size"]))
            found[name]["law"] = [short(x) for x in expected(name, sizes, edges)]
    return found


def proposed(runs: Sequence[Run], known: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return, by statistic, the largest value, whose it is, and the threshold that follows."""
    found = {}
    for name, limit in known.items():
        some = [run for run in runs if name in run["stats"]]
        if some:
            worst = max(some, key=lambda run: run["stats"][name])
            largest = worst["stats"][name]
            found[name] = {
                "largest": short(largest),
                "kernel": worst["kernel"],
                "case": worst["case"],
                "proposed": short(MARGIN * largest),
                "frozen": limit,
            }
    return found


def short(value: float) -> float:
    """Return `value` to four digits: the document is committed."""
    return float(f"{value:.4g}")
