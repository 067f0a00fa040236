"""Studies: settings varied over many simulated chips, and what became of them."""

from xbarsim.study.axes import Axis
from xbarsim.study.point import Point
from xbarsim.study.study import Stop, Study
from xbarsim.study.sweeping import sweep

__all__ = ["Axis", "Point", "Stop", "Study", "sweep"]
