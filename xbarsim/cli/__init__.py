"""Command line: parse, call, print."""

from __future__ import annotations

from xbarsim.cli import bench, circuit, demo, export, networks, report, sweep
from xbarsim.cli.common import commands, main

__all__ = ["bench", "circuit", "commands", "demo", "export", "main", "networks", "report", "sweep"]
