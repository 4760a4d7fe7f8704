"""The scores of each of many classes, in a file of their own: neither logs nor checkpoints repeat them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_atomically
from transfer_jax.tasks.confusions import Confusions

MOST_IN_LOG = 50
"""Largest number of classes whose scores are in the metrics log, in checkpoints and in `phases.json`."""
_COUNTS = "images"
"""The column that has a number for classes without images, too."""
FILES: dict[Literal["validation", "test"], str] = {
    "validation": workdir_files.CLASS_SCORES,
    "test": workdir_files.TEST_CLASS_SCORES,
}
"""The files by part of the images."""


@dataclasses.dataclass(frozen=True, eq=False)
class ClassScores:
    """The scores of each class or label.

    Attributes:
        names: The classes.
        columns: The scores by name, such as `recall`, each float64 `(classes,)`, NaN for a class without
            images; and `images`, their numbers.
        confusions: The images by true and predicted class; None for tasks without classes that exclude each
            other.
        step: Step of the run at which they were computed.
    """

    names: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    confusions: Confusions | None = None
    step: int = 0

    @classmethod
    def of(
        cls, per_class: Mapping[str, Mapping[str, Any]], confusions: Confusions | None = None, step: int = 0
    ) -> "ClassScores":
        """Returns the scores of the entry `per_class` of `Task.scores`."""
        first = next(iter(per_class.values()))
        types = {name: np.int64 if name == _COUNTS else np.float64 for name in first}
        columns = {
            name: np.array([row[name] for row in per_class.values()], dtype) for name, dtype in types.items()
        }
        return cls(tuple(per_class), columns, confusions, step)

    @property
    def images(self) -> np.ndarray:
        """The number of images of each class, `(classes,)`."""
        return self.columns[_COUNTS]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Returns the scores by class, as `per_class` of `Task.scores`."""
        columns = {
            name: [None if value != value else value for value in values.tolist()]
            for name, values in self.columns.items()
        }
        each = zip(*columns.values(), strict=True)
        return {
            name: dict(zip(columns, values, strict=True))
            for name, values in zip(self.names, each, strict=True)
        }

    def worst(self, most: int) -> dict[str, dict[str, Any]]:
        """Returns the scores of the evaluated classes with the lowest F1, lowest first."""
        score = np.where(self.images > 0, self.columns["f1"], np.inf)
        chosen = [place for place in np.argsort(score, kind="stable")[:most] if np.isfinite(score[place])]
        few = {name: values[chosen] for name, values in self.columns.items()}
        return ClassScores(tuple(self.names[place] for place in chosen), few).rows()

    def write(self, path: Path) -> None:
        """Writes the scores to a file in NumPy's format `.npz`."""
        arrays: dict[str, Any] = {"names": np.array(self.names), "step": np.array(self.step)}
        arrays |= {f"score_{name}": values for name, values in self.columns.items()}
        if (pairs := self.confusions) is not None:
            arrays |= {"true": pairs.true, "predicted": pairs.predicted, "pair_images": pairs.images}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def read(cls, path: Path) -> "ClassScores | None":
        """Returns the scores of a file; None if it is missing.

        Raises:
            ValueError: If the file is damaged.
        """
        try:
            with path.open("rb") as opened, np.load(opened) as file:
                names = tuple(file["names"].tolist())
                columns = {key[6:]: file[key] for key in file.files if key.startswith("score_")}
                pairs = None
                if "true" in file.files:
                    arrays = [file[key] for key in ("true", "predicted", "pair_images")]
                    pairs = Confusions(*arrays, classes=len(names))
                return cls(names, columns, pairs, int(file["step"]))
        except FileNotFoundError:
            return None
        except (BadZipFile, EOFError, KeyError, OSError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None
