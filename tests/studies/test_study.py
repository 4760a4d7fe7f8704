import dataclasses
import json

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.storage import workdir_files
from transfer_jax.studies.study import Arm, Study, create_study_folder, read_study
from transfer_jax.studies.table import read_table, write_table


def study_of(folder, *, names=("a", "b"), seeds=(0, 1), **changes) -> Study:
    config = TrainConfig(images=str(folder), model="efficientnet_lite_tiny", weights="none", **changes)
    arms = tuple(Arm(name=name, label=f"arm {name}", factors={"way": name}, config=config) for name in names)
    return Study(
        name="ways",
        question="Which way is best?",
        factor="way",
        baseline="a",
        ordered=False,
        arms=arms,
        seeds=seeds,
    )


def test_a_study_is_read_as_it_was_written(image_folder, tmp_path):
    study = dataclasses.replace(study_of(image_folder), target=0.8, command="transfer-jax study ways")
    create_study_folder(study, tmp_path)
    assert read_study(tmp_path) == study
    written = json.loads((tmp_path / workdir_files.STUDY).read_text())
    assert written["trials"][3] == {"name": "b-seed1", "label": "arm b", "factors": {"way": "b", "seed": 1}}


def test_a_seed_is_the_same_in_all_arms(image_folder):
    assert [trial.config.seed for trial in study_of(image_folder).trials] == [0, 1, 0, 1]


def test_a_study_may_grow_but_not_change(image_folder, tmp_path):
    create_study_folder(study_of(image_folder), tmp_path)
    create_study_folder(study_of(image_folder, seeds=(0, 1, 2), names=("a", "b", "c")), tmp_path)
    assert len(read_study(tmp_path).trials) == 9
    with pytest.raises(ValueError, match="lacks c-seed0, c-seed1, c-seed2; arms and seeds may be"):
        create_study_folder(study_of(image_folder, seeds=(0, 1, 2)), tmp_path)
    with pytest.raises(ValueError, match="in a-seed0, batch_size was 32, now 8"):
        create_study_folder(
            study_of(image_folder, seeds=(0, 1, 2), names=("a", "b", "c"), batch_size=8), tmp_path
        )
    other = dataclasses.replace(study_of(image_folder), name="others")
    with pytest.raises(ValueError, match="is the folder of the study 'ways'"):
        create_study_folder(other, tmp_path)


def test_the_folder_of_a_run_is_left_alone(image_folder, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is the folder of a training run"):
        create_study_folder(study_of(image_folder), tmp_path)


def test_a_damaged_study_is_named(image_folder, tmp_path):
    (tmp_path / workdir_files.STUDY).write_text('{"name": "ways"}')
    with pytest.raises(ValueError, match=r"study\.json is not a study that this version can read"):
        read_study(tmp_path)


def test_invalid_studies(image_folder):
    with pytest.raises(ValueError, match="the baseline 'a' is not one of the levels"):
        study_of(image_folder, names=("b", "c"))
    with pytest.raises(ValueError, match="the same seed twice"):
        study_of(image_folder, seeds=(1, 1))
    with pytest.raises(ValueError, match="has no trials"):
        study_of(image_folder, seeds=())


@pytest.mark.parametrize("name", ["../../out", "a/b", "$1\n", "x" * 300, "CON", "caf\udce9"])
def test_an_arm_has_any_name(image_folder, tmp_path, name):
    study = study_of(image_folder, names=("a", name))
    create_study_folder(study, tmp_path)
    assert read_study(tmp_path) == study
    assert study.arms[1].name == name
    folders = [trial.workdir(tmp_path) for trial in study.trials]
    for folder in folders:
        folder.mkdir()
        assert folder.parent == tmp_path / workdir_files.TRIALS
    assert len({*folders}) == 4


@pytest.mark.parametrize("values", [[1, "a"], ["caf\udce9", "b"], [1, 2.5, None], [None, None]])
def test_a_table_has_levels_of_any_type(tmp_path, values):
    write_table([{"trial": str(value), "level": value} for value in values], tmp_path)
    found = [row["level"] for row in read_table(tmp_path)]
    shown = {1: "1"} if "a" in values else {"caf\udce9": r"caf\udce9"}
    assert found == [shown.get(value, value) for value in values]
