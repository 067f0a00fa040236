"""Models: trained networks by name; what is missing can be trained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xbarsim.errors import ModelError

__all__ = ["HOME", "Models"]

HOME = Path(__file__).resolve().parents[1] / "models"
_SHIPPED = ("lenet5", "resnet14")


@dataclass(frozen=True)
class Models:
    """Folders of trained networks, ``NAME.onnx``, beside those that come with xbarsim.

    Parameters
    ----------
    folders : looked into one after the other
    train : whether ``benchmarks/models/train.py`` is asked for what is in none of them
    data : folder of images that they are for, instead of Fashion-MNIST; the last of the folders is theirs
    """

    folders: Sequence[Path] = (HOME,)
    train: bool = False
    data: Path | None = None

    def find(self, name: str) -> str:
        """What `Study` takes as its model: the name of a shipped one, or a path.

        Raises
        ------
        ModelError
            It is in none of the folders, and cannot be trained.
        """
        if self._is_shipped(name):
            return name
        found = self._in_folders(name)
        if found is None and self.train:
            command = [sys.executable, str(HOME / "train.py"), name]
            if self.data is not None:
                own = self.folders[-1]
                command += ["--data", str(self.data), "--out", str(own), "--checkpoints", str(own / "checkpoints")]
            if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
                raise ModelError(f"{name} could not be trained: {' '.join(command)}")
            found = self._in_folders(name)
        if found is None:
            places = ", ".join(str(folder) for folder in self.folders)
            raise ModelError(f"{name}.onnx is not in {places}; python {HOME / 'train.py'} {name} trains it")
        return str(found)

    def has(self, name: str) -> bool:
        """Whether a network is there already."""
        return self._is_shipped(name) or self._in_folders(name) is not None

    def _is_shipped(self, name: str) -> bool:
        return name in _SHIPPED and self.data is None

    def _in_folders(self, name: str) -> Path | None:
        return next((path for folder in self.folders if (path := folder / f"{name}.onnx").exists()), None)
