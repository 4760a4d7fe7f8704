import pytest

from transfer_jax.report.page.study_files import StudyFiles, display_name


def test_means_have_the_intervals_of_the_answer(make_study, tmp_path):
    files = StudyFiles(make_study(tmp_path))
    means = files.means("accuracy")
    assert [row["level"] for row in means] == ["head", "top", "blocks.11", "blocks.1", "stem"]
    for row, level in zip(means, files.analysis["levels"], strict=True):
        assert row["n"] == 3
        assert row["mean"] == pytest.approx(level["accuracy"]["mean"])
        assert (row["low"], row["high"]) == (level["accuracy"]["low"], level["accuracy"]["high"])


def test_intervals_of_fractions_end_at_possible_values(make_study, tmp_path):
    files = StudyFiles(make_study(tmp_path))
    for level in files.analysis["levels"]:
        level |= {name: {"mean": 0.5, "low": -2.0, "high": 3.0} for name in ("accuracy", "log_loss")}
    assert {(row["low"], row["high"]) for row in files.means("accuracy")} == {(0.0, 1.0)}
    assert {(row["low"], row["high"]) for row in files.means("log_loss")} == {(-2.0, 3.0)}


def test_an_unfinished_study_has_means_without_intervals(make_study, tmp_path):
    files = StudyFiles(make_study(tmp_path, done=4))
    assert [(row["level"], row["n"], row["low"]) for row in files.means("accuracy")] == [
        ("head", 3, None),
        ("top", 1, None),
    ]
    assert files.means("nothing") == []


def test_the_overfit_gap_is_training_minus_validation(make_study, tmp_path):
    for row in StudyFiles(make_study(tmp_path)).rows:
        assert row["overfit_gap"] == pytest.approx(row["depth"] / 20)


def test_a_new_study(make_study, tmp_path):
    files = StudyFiles(make_study(tmp_path, done=0))
    assert (files.rows, files.analysis, len(files.labels)) == ([], {}, 5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ece", "calibration error"),
        ("train_seconds", "train"),
        ("log_loss", "log loss"),
        ("seconds", "seconds"),
    ],
)
def test_columns_have_names_for_people(name, words):
    assert display_name(name) == words
