"""Command line: parse, call, print."""

from __future__ import annotations

from xbarsim.cli import bench, circuit, demo, networks, report, sweep
from xbarsim.cli.common import commands, main

__all__ = ["bench", "circuit", "commands", "demo", "main", "networks", "report", "sweep"]
