import pytest

from transfer_jax.commands import runs
from transfer_jax.config import load_config
from transfer_jax.report.progress import Silent
from transfer_jax.runs import demo
from transfer_jax.runs.demo import QUICK_PIXELS, WAYS, run_demo, shorten, table_columns, table_rows
from transfer_jax.runs.result import PhaseResult, Result


@pytest.fixture
def results(monkeypatch):
    """The configs that the demo trains; each takes no time."""
    trained = []

    def fit(config, workdir, *, progress):
        trained.append(config)
        metrics = {"accuracy": 0.8 + len(trained) / 100, "balanced_accuracy": 0.75}
        return Result(workdir=workdir, phases=(make_phase(metrics),))

    monkeypatch.setattr(demo, "fit", fit)
    return trained


def make_phase(metrics):
    values = {"name": "head", "metrics": metrics, "trainable_parameters": 2562, "images_per_second": 99.0}
    times = {"compile_seconds": 1.0, "extract_seconds": 2.0, "train_seconds": 3.0}
    others = dict.fromkeys(PhaseResult.__dataclass_fields__, 0)
    return PhaseResult(**{**others, **values, **times})


def test_each_way_is_trained_when_it_is_requested(results, tmp_path):
    found = run_demo(tmp_path, quick=True, seed=3, progress=Silent())
    for count, name in enumerate(WAYS, 1):
        assert next(found)[0] == name
        assert len(results) == count
    assert {config.feature_dir for config in results} == {str(tmp_path / "features")}
    assert {config.seed for config in results} == {3}


def test_the_command_prints_each_result_when_it_is_there(results, tmp_path, monkeypatch):
    printed = []
    monkeypatch.setattr(runs, "print_line", lambda console, line: printed.append((len(results), line)))
    monkeypatch.setattr(Result, "metrics", property(lambda result: result.phases[-1].metrics))
    runs.demo(workdir=tmp_path)
    for count, name in enumerate(WAYS, 1):
        assert (count, True) in [(trained, line.startswith(f"{name}: accuracy")) for trained, line in printed]


@pytest.mark.parametrize("experiment", WAYS.values())
def test_a_quick_demo_is_short(experiment):
    config = shorten(load_config(experiment))
    assert config.image_size == QUICK_PIXELS
    assert all(phase.epochs <= 20 and phase.views <= 1 for phase in config.schedule.phases)


def test_a_row_for_each_phase(tmp_path):
    phase = make_phase({"accuracy": 0.8, "balanced_accuracy": 0.75})
    result = Result(workdir=tmp_path, phases=(phase,))
    (row,) = table_rows("run", result)
    assert len(row) == len(table_columns(result))
    assert row == ["run: head", "2,562", "99", "1.0", "2.0", "3.0", "80.0%", "75.0%"]
