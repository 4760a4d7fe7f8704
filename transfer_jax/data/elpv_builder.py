"""A tensorflow-datasets builder of the ELPV solar cells. Importing this file imports tensorflow-datasets."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

PACKAGE = "elpv_dataset"

_DESCRIPTION = """\
Electroluminescence photographs of solar cells, cut out of 44 photovoltaic modules and rectified: 2,624
gray images of 300 x 300 pixels. Each image has the probability that the cell is defective, as judged by
experts (0, 1/3, 2/3 or 1), and the type of its silicon, mono- or polycrystalline.

The images are licensed under CC BY-NC-SA 4.0 (attribution, non-commercial, share alike). They are part of
the Python package `elpv-dataset`; nothing is downloaded.
"""

_CITATION = """\
@article{deitsch2019automatic,
  author = {Deitsch, Sergiu and Christlein, Vincent and Berger, Stephan and Buerhop-Lutz, Claudia and
            Maier, Andreas and Gallwitz, Florian and Riess, Christian},
  title = {Automatic classification of defective photovoltaic module cells in electroluminescence images},
  journal = {Solar Energy}, volume = {185}, pages = {455--468}, year = {2019},
  doi = {10.1016/j.solener.2019.02.067}
}
@inproceedings{buerhop2018benchmark,
  author = {Buerhop-Lutz, Claudia and Deitsch, Sergiu and Maier, Andreas and Gallwitz, Florian and
            Berger, Stephan and Doll, Bernd and Hauch, Jens and Camus, Christian and Brabec, Christoph J.},
  title = {A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery},
  booktitle = {European PV Solar Energy Conference and Exhibition (EU PVSEC)}, year = {2018},
  doi = {10.4229/35thEUPVSEC20182018-5CV.3.15}
}
"""


class Elpv(tfds.core.GeneratorBasedBuilder):
    """2,624 photographs of solar cells with the probability of a defect.

    Features: `image` uint8 `(300, 300, 1)`, `probability` float32, `type` (mono, poly) and `name`, in the
    order of the package's table.
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # Its search needs `importlib_resources`, which tensorflow-datasets does not declare.
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "The images and labels of elpv-dataset 1.0.0."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            citation=_CITATION,
            license="CC BY-NC-SA 4.0",
            homepage="https://github.com/zae-bayern/elpv-dataset",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(300, 300, 1), encoding_format="png"),
                    "probability": np.float32,
                    "type": tfds.features.ClassLabel(names=["mono", "poly"]),
                    "name": tfds.features.Text(),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # Nothing to download.
        return {"train": self._generate_examples(package_folder())}

    def _generate_examples(self, folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, line in enumerate((folder / "labels.csv").read_text(encoding="utf-8").splitlines()):
            path, probability, kind = line.split()
            example = {
                "image": (folder / path).read_bytes(),
                "probability": float(probability),
                "type": kind,
                "name": path,
            }
            yield key, example


def package_folder() -> Path:
    """Returns the folder of the installed package `elpv-dataset` that contains `labels.csv` and `images`.

    Raises:
        ModuleNotFoundError: If the package is not installed; the message says how to install it.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "the ELPV images are part of the package elpv-dataset, which is not installed; "
            "install it with python -m pip install elpv-dataset"
        )
    return Path(found.origin).parent / "data"
