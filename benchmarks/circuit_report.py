"""What `circuit.py` measured, as a table beside the targets and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TASKS = "transfer matrix", "one vector", "sinh cells"
PEERS = "badcrossbar", "SciPy LU", "ngspice"

MS_TARGETS: dict[str, dict[int, tuple[float, float]]] = {
    "transfer matrix": {64: (3, 1.5), 128: (18, 8), 256: (100, 45), 512: (450, 250), 1024: (3500, 1800)},
    "one vector": {64: (0.3, 0.15), 128: (1.5, 0.8), 256: (8, 4)},
    "sinh cells": {64: (1, 0.5), 128: (7, 3), 256: (50, 25)},
}
"""Times that must and that might be reached on one thread of a server's processor."""
RATIO_TARGETS: dict[str, dict[int, tuple[float, float]]] = {
    "transfer matrix": {64: (60, 120), 128: (50, 100)},
    "one vector": {64: (150, 400), 128: (150, 400), 256: (150, 400)},
}
"""How many times faster than badcrossbar in the same run."""
ERROR_TARGETS = {"transfer matrix": (1e-13, 1e-14), "sinh cells": (1e-9, 1e-11)}
"""Of the transfer matrix against extended precision, of sinh cells against ngspice."""

Rows = list[dict[str, Any]]


def targets(pair: tuple[float, float] | None) -> str:
    """ "must / might", or nothing."""
    return "" if pair is None else f"{pair[0]:g} / {pair[1]:g}"


def tables(report: dict[str, Any]) -> None:
    """Print everything."""
    console = Console(width=160)
    console.print(report["machine"])
    for task in TASKS:
        console.print(_table(task, [row for row in report["rows"] if row["task"] == task]))
    memory = report["memory"]
    if memory:
        n, peak, before = memory["size"], memory["process_peak"] / 1e9, memory["before"] / 1e9
        console.print(
            f"memory: a process that computes the transfer matrix of {n} x {n} cells peaks at {peak:.2f} GB, "
            f"{before:.2f} GB of it before (target at 1024: below {memory['target_peak'] / 1e9:g} GB)"
        )
    for line in report["missing"]:
        console.print(f"missing: {line}")


def _table(task: str, rows: Rows) -> Table:
    against = " (from ngspice)" if task == "sinh cells" else ""
    title = f"{task}: time in ms, as a multiple of ours in parentheses; targets: must / might"
    table = Table(title=title, title_justify="left")
    for name in ("n", "xbarsim", "target", f"error{against}", "target"):
        table.add_column(name, justify="right")
    peers = [peer for peer in PEERS if any(row["solver"] == peer for row in rows)]
    for peer in peers:
        table.add_column(peer, justify="right")
        if peer == "badcrossbar":
            table.add_column("target", justify="right")
        table.add_column("its error", justify="right")
    for n in sorted({row["size"] for row in rows}):
        here = {row["solver"]: row for row in rows if row["size"] == n}
        own = here["xbarsim"]
        # where there is no oracle, the distance of ngspice is what is known of both
        error = own["error"] if own["error"] is not None else here.get("ngspice", own)["error"]
        cells = [str(n), f"{own['seconds'] * 1e3:.3g}", targets(MS_TARGETS[task].get(n)), _error(error)]
        cells.append(targets(ERROR_TARGETS.get(task)))
        for peer in peers:
            row = here.get(peer)
            ratio = row["seconds"] / own["seconds"] if row else 0.0
            cells.append(f"{row['seconds'] * 1e3:.4g} ({ratio:.0f}x)" if row else "")
            if peer == "badcrossbar":
                cells.append(targets(RATIO_TARGETS.get(task, {}).get(n)))
            cells.append(_error(row["error"]) if row else "")
        table.add_row(*cells)
    return table


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def plot(report: dict[str, Any], path: Path) -> None:
    """Time by size, one panel a task, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(TASKS), figsize=(13, 4.5), sharey=True, layout="constrained")
    for panel, task in zip(panels, TASKS, strict=True):
        for index, solver in enumerate(("xbarsim", *PEERS)):
            rows = [row for row in report["rows"] if (row["task"], row["solver"]) == (task, solver)]
            if rows:
                sizes, seconds = [row["size"] for row in rows], [row["seconds"] for row in rows]
                panel.loglog(sizes, seconds, "o-", label=solver, color=f"C{index}", linewidth=2 if index == 0 else 1)
        known = MS_TARGETS[task]
        panel.loglog(list(known), [pair[0] / 1e3 for pair in known.values()], "k_", label="target: must")
        sizes = sorted({row["size"] for row in report["rows"]})
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.set_title(task)
        panel.set_xlabel("rows = columns")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    panels[0].set_ylabel("time on one thread [s]")
    figure.suptitle(report["machine"], fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)
