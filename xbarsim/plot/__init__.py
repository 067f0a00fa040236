"""Plots of results, drawn without a screen; colours that the colour-blind can tell apart (Okabe and Ito)."""

from xbarsim.plot.circuit import maps
from xbarsim.plot.curve import curves
from xbarsim.plot.layers import layer_errors
from xbarsim.plot.palette import COLOURS
from xbarsim.plot.portrait import adc_use, conductances, fault_map
from xbarsim.plot.runs import accuracies
from xbarsim.plot.saving import check_suffix, save
from xbarsim.plot.shares import importance

__all__ = [
    "COLOURS",
    "accuracies",
    "adc_use",
    "check_suffix",
    "conductances",
    "curves",
    "fault_map",
    "importance",
    "layer_errors",
    "maps",
    "save",
]
