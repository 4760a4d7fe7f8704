"""The commands as a newcomer types them, one after the other."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from transfer_jax import Phase, Schedule, TrainConfig, classify, cli, fit
from transfer_jax.config import load_config
from transfer_jax.data import load_dataset
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.tasks import SingleLabel

# As in the documentation; `IMAGES` and `WEIGHTS` are replaced.
EXPERIMENT = '''
"""Colours in five steps."""

from transfer_jax import TrainConfig, five_steps

config = TrainConfig(
    images="IMAGES",
    model="efficientnet_lite_tiny",
    weights="WEIGHTS",
    schedule=five_steps("top(2)", head_epochs=10, head_learning_rate=0.01, epochs=2, views=1),
    batch_size=16,
)
'''


@pytest.fixture(scope="module")
def experiment(images: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("experiment") / "colours.py"
    file.write_text(EXPERIMENT.replace("IMAGES", str(images)).replace("WEIGHTS", str(weights)))
    return file


@pytest.fixture(scope="module")
def trained(experiment: Path) -> Path:
    """A finished run."""
    workdir = experiment.parent / "trained"
    assert cli.main(["train", str(experiment), "--workdir", str(workdir)]) == 0
    return workdir


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_train_leaves_a_workdir(trained: Path, images: Path) -> None:
    assert json.loads((trained / "config.json").read_text())["images"] == str(images)
    for name in ("curves.png", "confusion.png", "timeline.png"):
        with Image.open(trained / name) as picture:
            assert min(picture.size) > 100
    kinds = [(line["kind"], line["phase"]) for line in lines(trained)]
    head, top = ([("train", name)] for name in ("head", "top"))
    proofs = [[("evaluation", name), ("proof", name)] for name in ("head", "top")]
    assert kinds == head * 10 + proofs[0] + top * 2 + proofs[1]

    rows = table(trained / "predictions.csv")
    assert len(rows) == 15
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    assert right == lines(trained)[-2]["accuracy"]
    assert right > 0.9
    assert all(abs(sum(float(row[f"p({c})"]) for c in ("blue", "green", "red")) - 1) < 1e-5 for row in rows)
    assert {path.name for path in (trained / "model").iterdir()} == {"weights.safetensors", "model.json"}

    mistakes = json.loads((trained / "mistakes/mistakes.json").read_text())["mistakes"]
    wrong = [row["image"] for row in rows if row["label"] != row["predicted"]]
    assert sorted(each["name"] for each in mistakes) == sorted(wrong)
    assert [phase["name"] for phase in json.loads((trained / "phases.json").read_text())["phases"]] == [
        "head",
        "top",
    ]
    timeline = json.loads((trained / "timeline.json").read_text())
    assert timeline["images"] == {"train": 45, "held_out": 15, "test": 0}
    assert timeline["planned"] == timeline["executed"]
    assert len(timeline["planned"]) == 12
    assert timeline["blocks"] == list(timeline["parameters"])


def test_a_finished_run_is_only_read(draw: Callable, run: Callable, tmp_path: Path) -> None:
    """Even the images are not needed any more."""
    folder, workdir = draw(tmp_path / "colours", 4), tmp_path / "run"
    command = ("train", "--images", folder, "--model", "efficientnet_lite_tiny", "--weights", "none")
    command = (*command, "--schedule.phases.0.epochs", 2, "--schedule.phases.1.epochs", 1)
    command = (*command, "--schedule.phases.1.views", 0, "--workdir", workdir)
    first = run(*command)
    assert first.code == 0, first.err
    shutil.rmtree(folder)
    before = everything(workdir)
    second = run(*command)
    assert (second.code, second.out, second.err) == (0, first.out, "")
    after = everything(workdir)
    del before["config.json"], after["config.json"]  # Indifferent fields may have changed.
    assert after == before


def test_training_ends_with_what_to_do_next(experiment: Path, trained: Path, run: Callable) -> None:
    done = run("train", experiment, "--workdir", trained)
    assert done.code == 0, done.err
    report, predict = done.out.rsplit("Report: ")[-1].split("Next: ")
    assert predict.split() == ["transfer-jax", "predict", str(trained), "IMAGE", "..."]
    assert Path(report.strip()) == trained / "report.html"


def test_the_config_of_a_run_trains_it_again(trained: Path, run: Callable, tmp_path: Path) -> None:
    done = run("train", trained / "config.json", "--workdir", tmp_path / "again")
    assert done.code == 0, done.err
    assert table(tmp_path / "again/predictions.csv") == table(trained / "predictions.csv")
    environment = json.loads((tmp_path / "again/environment.json").read_text())
    assert environment["command"][:3] == ["transfer-jax", "train", str(trained / "config.json")]


def test_report(trained: Path, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = everything(trained)
    (trained / "report.html").unlink()
    done = run("report", trained)
    assert done.code == 0, done.err
    assert done.out.split()[-1] == str(trained / "report.html")
    assert everything(trained).keys() == before.keys()
    accuracy = lines(trained)[-2]["accuracy"]
    assert f"{accuracy:.1%}" in (trained / "report.html").read_text()

    shutil.copytree(trained, tmp_path / "other")
    done = run("report", trained, tmp_path / "other")
    assert done.code == 0, done.err
    assert "Comparison of 2 runs" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nowhere",), "nowhere is not the folder of a run: it has no config.json"),
        (("nowhere", "--out", "report.pdf"), "--out must end in .html, got report.pdf"),
        (("nowhere", "nowhere"), "a run is given twice"),
    ],
)
def test_reports_that_cannot_be(run: Callable, arguments: tuple[str, ...], error: str) -> None:
    done = run("report", *arguments)
    assert done.code == 2
    assert error in " ".join(done.err.split())


def test_options_override_a_config(experiment: Path, images: Path, run: Callable, tmp_path: Path) -> None:
    done = run(
        "train",
        experiment,
        *("--workdir", tmp_path / "run", "--seed", 3, "--dropout", 0.1, "--hidden", 8),
        *("--augmentation.flip-vertical", "--schedule.phases.0.epochs", 1),
        *("--schedule.phases.1.train", "head | match('top/norm')", "--schedule.phases.1.epochs", 1),
    )
    assert done.code == 0, done.err
    written = json.loads((tmp_path / "run/config.json").read_text())
    assert (written["seed"], written["dropout"], written["hidden"]) == (3, 0.1, [8])
    assert (written["images"], written["batch_size"]) == (str(images), 16)
    assert written["augmentation"]["flip_vertical"] is True
    assert [phase["epochs"] for phase in written["schedule"]["phases"]] == [1, 1]
    assert written["schedule"]["phases"][1]["train"] == "(head | match('top/norm'))"
    trained = lines(tmp_path / "run")
    assert [line["step"] for line in trained if line["kind"] == "train"] == [2, 4]
    assert "backbone/top/norm/scale" not in trained[-1]["frozen"]
    assert "backbone/top/conv/kernel" in trained[-1]["frozen"]


def test_evaluate(trained: Path, images: Path, draw: Callable, run: Callable, tmp_path: Path) -> None:
    scores = lines(trained)[-2]
    own = run("evaluate", trained)
    assert own.code == 0, own.err
    assert f"accuracy {scores['accuracy']:.1%}," in " ".join(own.out.split())
    assert len(re.findall(r" 5 *$", own.out, re.MULTILINE)) == 3

    others = run("evaluate", trained, "--images", draw(tmp_path / "others", 3, seed=1))
    assert others.code == 0, others.err
    assert len(re.findall(r" 3 *$", others.out, re.MULTILINE)) == 3


def test_predict(
    trained: Path, images: Path, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = {row["image"]: row for row in table(trained / "predictions.csv")}
    folder = tmp_path / "[new]"
    (folder / "deep").mkdir(parents=True)
    names = list(held_out)[::5]
    copies = [folder / "deep" / f"{index}.png" for index in range(len(names))]
    for name, copy in zip(names, copies, strict=True):
        shutil.copy(images / name, copy)
    (folder / "notes.txt").write_text("no image")
    (folder / "._0.png").write_bytes(b"what macOS leaves")

    for suffix in ("csv", "json"):
        out = tmp_path / f"out.{suffix}"
        done = run("predict", trained, folder, images / names[0], "--out", out)
        assert done.code == 0, done.err
        rows = table(out) if suffix == "csv" else json.loads(out.read_text())
        assert [row["image"] for row in rows] == [*map(str, copies), str(images / names[0])]
        for row, name in zip(rows, [*names, names[0]], strict=True):
            assert row["predicted"] == held_out[name]["predicted"]
            for column in ("p(blue)", "p(green)", "p(red)"):
                assert float(row[column]) == pytest.approx(float(held_out[name][column]), abs=1e-4)

    monkeypatch.chdir(tmp_path)
    shown = run("predict", trained / "model", "[new]")
    assert shown.code == 0, shown.err
    assert "[new]/deep/0.png" in shown.out
    assert held_out[names[0]]["predicted"] in shown.out
    assert [row[1] for row in classify(trained, [folder])] == [held_out[n]["predicted"] for n in names]


def test_a_training_uses_what_was_extracted(
    experiment: Path, images: Path, run: Callable, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    command = (experiment, "--workdir", workdir, "--schedule.phases.1.epochs", 1)
    extracted = run("extract", *command)
    assert extracted.code == 0, extracted.err
    assert "(45, 1280)" in extracted.out
    assert "(15, 1280)" in extracted.out
    before = everything(workdir / "features")
    labels = [np.load(path) for path in sorted((workdir / "features").glob("*/labels.npy"))]
    assert sorted(np.bincount(found).tolist() for found in labels) == [[5, 5, 5], [15, 15, 15]]

    again = run("extract", *command)
    assert again.code == 0, again.err
    trained = run("train", *command)
    assert trained.code == 0, trained.err
    after = everything(workdir / "features")
    shards = {name: what for name, what in before.items() if "shard" in name}
    assert len(shards) == 2
    assert shards.items() <= after.items()
    counted = run("train", *command)
    assert counted.code == 0
    config = load_config(str(experiment))
    config = TrainConfig.from_json(
        {**config.to_json(), "schedule": json.loads((workdir / "config.json").read_text())["schedule"]}
    )
    head, top = fit(config, workdir).phases
    assert (head.extracted, top.extracted) == (0, 45 + 15)


def test_models(run: Callable) -> None:
    done = run("models", "--match", "*lite_tiny")
    assert done.code == 0, done.err
    assert "efficientnet_lite_tiny" in done.out
    assert "efficientnet_lite0" not in done.out


def test_inspect(run: Callable, weights: Path, tmp_path: Path) -> None:
    done = run("inspect", str(weights), "--keys", "2")
    assert done.code == 0, done.err
    assert "F32" in done.out
    assert "more; --keys 0 lists all" in done.out
    assert "It fits efficientnet_lite_tiny, with the names of" in done.out
    save_file({"teapot": np.zeros(3, np.float32)}, tmp_path / "teapot.safetensors")
    done = run("inspect", str(tmp_path / "teapot.safetensors"))
    assert done.code == 0, done.err
    assert "1 array, 3 values, F32" in done.out
    assert "its keys are not similar to those of any" in done.out


def test_console_script(start: Callable) -> None:
    script = Path(sys.executable).with_name("transfer-jax")
    done = start(script, "--help")
    assert done.code == 0, done.err
    assert re.search(r"^  train +Trains ", done.out, re.MULTILINE)


def test_fewer_images_than_a_batch(draw: Callable, run: Callable, tmp_path: Path) -> None:
    schedule = Schedule((Phase(name="head", train="head", epochs=3, learning_rate=0.01),))
    config = TrainConfig(
        images=str(draw(tmp_path / "few", 3)),
        model="efficientnet_lite_tiny",
        weights="none",
        schedule=schedule,
        batch_size=64,
        val_fraction=0.4,
    )
    result = fit(config, tmp_path / "run")
    assert result.metrics["images"] == 4
    assert [line["step"] for line in lines(tmp_path / "run") if line["kind"] == "train"] == [1, 2, 3]


def test_ragged_batches_do_not_change_the_scores(trained: Path, draw: Callable, tmp_path: Path) -> None:
    """Twelve images are 2.4, 1.7 and 0.4 batches."""
    dataset = load_dataset(str(draw(tmp_path / "more", 4, seed=2)))
    found = [predict_dataset(trained, dataset, batch_size=size) for size in (5, 7, 32)]
    scores = [SingleLabel(dataset.class_names).scores(one, dataset.labels) for one in found]
    assert [score["images"] for score in scores] == [12, 12, 12]
    for probabilities, score in zip(found[1:], scores[1:], strict=True):
        np.testing.assert_allclose(probabilities, found[0], rtol=1e-4)
        assert score["confusion"] == scores[0]["confusion"]
        assert score["log_loss"] == pytest.approx(scores[0]["log_loss"], rel=1e-4)


def test_plan_estimates_the_cost_of_a_run(run, experiment, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = run("plan", experiment, "--blocks", "--cost", "--workdir", trained)
    assert shown.code == 0
    costs, compared = shown.out.split("Cost")[1].split("Estimated and measured")
    for line in (r"boundary +pre_logits +blocks\.6", "kept in +memory +memory", "programs +3 +3"):
        assert re.search(line, costs)
    ratios = [float(number) for number in re.findall(r"(\d+\.\d\d)\D*$", compared, re.MULTILINE)]
    assert len(ratios) == 2
    assert all(ratio > 0 for ratio in ratios)
    assert [*tmp_path.iterdir()] == []
