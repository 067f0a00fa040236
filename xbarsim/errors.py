"""Errors that a user can act on.

Everything that a user can get wrong (a file, a field, a value, a shape) raises a subclass of
:class:`XbarsimError` with one line that names the culprit and says what is valid. The command line prints that
line and exits with code 2; a traceback always means a defect of xbarsim itself.
"""

from __future__ import annotations

__all__ = [
    "ChipError",
    "CircuitError",
    "DataError",
    "MetricError",
    "ModelError",
    "OutputError",
    "StudyError",
    "XbarsimError",
]


class XbarsimError(ValueError):
    """Base class of all errors caused by input that xbarsim cannot accept."""


class ChipError(XbarsimError):
    """A chip file, preset name, field or value is invalid."""


class ModelError(XbarsimError):
    """A model file cannot be read, is malformed, or asks for something that no path can run."""


class StudyError(XbarsimError):
    """A study file, an axis or a point of it is invalid, or a result belongs to another study."""


class DataError(XbarsimError):
    """Inputs, labels, calibration data or measured tables do not fit what they are used for."""


class MetricError(XbarsimError):
    """A metric is unknown, does not fit outputs or labels, or is a function that fails."""


class CircuitError(XbarsimError):
    """A circuit has no solution, or the solver did not find it."""


class OutputError(XbarsimError):
    """A result cannot be written where it was asked for."""
