"""Command line: parse, call, print."""

from __future__ import annotations

from xbarsim.cli import bench, circuit, cost, demo, export, networks, report, sweep
from xbarsim.cli.common import commands, main

__all__ = ["bench", "circuit", "commands", "cost", "demo", "export", "main", "networks", "report", "sweep"]
