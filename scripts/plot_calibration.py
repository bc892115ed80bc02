# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.10"]
# ///
"""Draw what `python -m pinproof_cell calibrate` found, for docs/explanation/correctness.md.

    uv run scripts/plot_calibration.py [CALIBRATION.json...]

Without arguments all of results/calibration/. Each gives two files in docs/explanation/plots/, one
for outputs and one for gradients: how many runs of each kernel reached what, the limit, and what
normal errors of the judge's sigma would reach. The same input gives the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PLOTS = ROOT / "results" / "calibration", ROOT / "docs" / "explanation" / "plots"

TITLES = {
    "max_z": "max|z|",
    "row_rms": "worst row RMS",
    "rms": "RMS",
    "bias_share": "|bias| / its limit",
    "beta_share": "|beta| / its limit",
    "lse_error": "LSE error / its tolerance",
    **{
        f"{name}_{key}": f"{letters} {words}"
        for name, letters in (("dq", "dQ"), ("dk", "dK"), ("dv", "dV"))
        for key, words in (("max_z", "max|z|"), ("row_rms", "worst row RMS"), ("rms", "RMS"))
    },
}
PAGES = {"output": list(TITLES)[:6], "gradients": list(TITLES)[6:]}
#: Kernels with a line of their own; the emulated schedules share one.
NAMED = ("torch-", "triton-", "flash-attn-", "vllm-")
EMULATED = "emulated schedules"


def main(words: Sequence[str]) -> int:
    """Draw every calibration; returns the exit status."""
    paths = [Path(word) for word in words] or sorted(RESULTS.glob("*.json"))
    if not paths:
        print(f"error: no calibration in {RESULTS}", file=sys.stderr)
        return 2
    PLOTS.mkdir(exist_ok=True)
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        for page, statistics in PAGES.items():
            target = PLOTS / f"calibration-{path.stem}-{page}.svg"
            draw(document, statistics, target)
            print(f"written {target}")
    return 0


def draw(document: Mapping[str, Any], statistics: Sequence[str], target: Path) -> None:
    """Write one page: a panel for each statistic."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "pinproof", "font.size": 8})
    rows = -(-len(statistics) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(9, 2.2 * rows + 0.9), layout="constrained")
    kernels = sorted({name for table in document["histograms"].values() for name in folded(table)})
    for axis, name in zip(axes.flat, statistics, strict=True):
        panel(axis, document["histograms"].get(name), TITLES[name], kernels)
    device = document["device"]
    figure.suptitle(
        f"{document['runs']:,} runs of right kernels on {device['name']} ({device['capability']}): "
        f"{len(document['rejected'])} rejected"
    )
    handles = {
        label: handle
        for axis in axes.flat
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def panel(axis: Axes, table: Mapping[str, Any] | None, title: str, kernels: Sequence[str]) -> None:
    """Draw one statistic: a line for each kernel, the law where there is one, and the limit."""
    axis.set_title(title)
    if table is None:
        axis.text(0.5, 0.5, "not measured", ha="center", transform=axis.transAxes)
        return
    limit, counts = table["limit"], folded(table)
    bins = len(next(iter(counts.values()))) - 1
    edges = [limit * place / bins for place in range(bins + 2)]
    for place, name in enumerate(kernels):
        if name in counts:
            axis.stairs(counts[name], edges, color=f"C{place}", label=name)
    if "law" in table:
        axis.stairs(
            table["law"], edges, color="black", linestyle=":", label="normal errors, all runs"
        )
    axis.axvline(limit, color="red", linewidth=1, label="limit")
    axis.set_yscale("log")
    axis.minorticks_off()
    axis.set_ylim(bottom=0.7)
    axis.set_xlim(0, edges[-1])


def folded(table: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the counts by kernel, the emulated schedules together."""
    found: dict[str, list[int]] = defaultdict(
        lambda: [0] * len(next(iter(table["kernels"].values())))
    )
    for name, counts in table["kernels"].items():
        mine = name if name.startswith(NAMED) else EMULATED
        found[mine] = [a + b for a, b in zip(found[mine], counts, strict=True)]
    return dict(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
