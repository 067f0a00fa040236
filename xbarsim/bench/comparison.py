"""Comparison: two reports side by side, and which changes are more than noise."""

from __future__ import annotations

from typing import Literal

from xbarsim.bench.report import Figure, Report
from xbarsim.spec import Positive, Spec

__all__ = ["Change", "Comparison", "compare"]

_FLOOR = 0.05
"""Change that is never called more than noise: two runs differ by more than the turns of one."""


class Change(Spec):
    """One line of two reports."""

    name: str
    then: Positive
    """Best time [s] of the earlier report."""
    now: Positive
    ratio: Positive
    """Time now as a multiple of the time then."""
    limit_ratio: Positive
    """The same of the first limit, which tells of a change of the machine."""
    noise: float
    """Change that both runs' own spreads explain, as a fraction."""
    mark: Literal["", "faster", "slower"]


class Comparison(Spec):
    """What became of the figures of an earlier report."""

    changes: tuple[Change, ...]
    """The lines that both reports have."""
    differences: tuple[str, ...]
    """What differs between the runs besides the code: machine, versions, threads."""
    missing: int
    """Lines that the earlier report does not have."""


def compare(now: Report, then: Report) -> Comparison:
    """Two reports, line by line.

    A change is marked where it exceeds what the turns of both runs differ by (median over best), and 5 % at least.
    """
    before = {figure.name: figure for figure in then.figures}
    both = [figure for figure in now.figures if figure.name in before]
    changes = tuple(_change(figure, before[figure.name]) for figure in both)
    return Comparison(changes=changes, differences=_differences(now, then), missing=len(now.figures) - len(changes))


def _change(now: Figure, then: Figure) -> Change:
    own, old = now.own, then.own
    ratio = old.rate / own.rate
    noise = max(_FLOOR, (1.0 + own.noise) * (1.0 + old.noise) - 1.0)
    mark: Literal["", "faster", "slower"] = ""
    if ratio > 1.0 + noise:
        mark = "slower"
    elif ratio < 1.0 / (1.0 + noise):
        mark = "faster"
    return Change(
        name=now.name,
        then=old.best,
        now=own.best,
        ratio=ratio,
        limit_ratio=then.limits[0].rate / now.limits[0].rate,
        noise=noise,
        mark=mark,
    )


def _differences(now: Report, then: Report) -> tuple[str, ...]:
    here, there = now.machine.model_dump(), then.machine.model_dump()
    found = [f"{name} is {here[name]}, was {there[name]}" for name in here if here[name] != there[name]]
    if now.threads != then.threads:
        found.append(f"threads are {now.threads}, were {then.threads}")
    return tuple(found)
