"""Data sets: inputs and labels from files of the usual formats, checked against the network that they are for.

`Dataset.load` finds the format from the path, and `Dataset.part` reads no more than the samples that are asked for.
"""

from __future__ import annotations

from xbarsim.data.dataset import Dataset
from xbarsim.data.pixels import Pixels

__all__ = ["Dataset", "Pixels"]
