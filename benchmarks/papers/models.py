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
    out : where ``benchmarks/models/train.py`` puts what is in none of them; None where it is not asked
    data : folder of images that they are for, instead of Fashion-MNIST
    """

    folders: Sequence[Path] = (HOME,)
    out: Path | None = None
    data: Path | None = None

    def find(self, name: str) -> str:
        """What `Study` takes as its model: the name of a shipped one, or a path.

        Raises
        ------
        ModelError
            It is in none of the folders, and cannot be trained.
        """
        found = self._in_folders(name)
        if found is None and self._is_shipped(name):
            return name
        if found is None and self.out is not None:
            command = [sys.executable, str(HOME / "train.py"), name, "--out", str(self.out)]
            if self.data is not None:
                command += ["--data", str(self.data), "--checkpoints", str(self.out / "checkpoints")]
            if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
                raise ModelError(f"{name} could not be trained: {' '.join(command)}")
            found = self._in_folders(name)
        if found is None:
            places = ", ".join(str(folder) for folder in self.folders)
            raise ModelError(f"{name}.onnx is not in {places}; python {HOME / 'train.py'} {name} trains it")
        return str(found)

    def _is_shipped(self, name: str) -> bool:
        return name in _SHIPPED and self.data is None

    def _in_folders(self, name: str) -> Path | None:
        folders = [*self.folders, *([] if self.out is None else [self.out])]
        return next((path for folder in folders if (path := folder / f"{name}.onnx").exists()), None)
