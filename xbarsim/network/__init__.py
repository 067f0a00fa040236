"""Networks: ONNX and NPZ models as crossbar layers on simulated chips and digital segments in onnxruntime."""

from xbarsim.network.calibration import Calibration
from xbarsim.network.feeds import TensorInfo
from xbarsim.network.layers import Layer
from xbarsim.network.loading import load
from xbarsim.network.network import Network
from xbarsim.network.npz.reading import load_matrices
from xbarsim.network.programmed import Ensemble, ProgrammedNetwork
from xbarsim.network.summary import Summary, SummaryRow

__all__ = [
    "Calibration",
    "Ensemble",
    "Layer",
    "Network",
    "ProgrammedNetwork",
    "Summary",
    "SummaryRow",
    "TensorInfo",
    "load",
    "load_matrices",
]
