import pytest

from transfer_jax.report.page.run_files import RunFiles, thin_out


def test_a_finished_run(make_run, tmp_path):
    run = RunFiles.from_workdir(make_run(tmp_path / "toy"))
    assert (run.name, run.finished, run.frozen_unchanged) == ("toy", True, True)
    assert run.blocks == ["stem", "blocks.1", "blocks.11", "top", "head"]
    assert run.phase_spans() == [
        {"name": "head", "first": 0, "last": 6},
        {"name": "top", "first": 6, "last": 10},
    ]
    assert [line["at"] for line in run.evaluations] == [6, 10]
    assert len(run.block_statistics["rgn"]) == 10
    assert set(run.block_statistics["rgn"][-1]["blocks"]) == {"blocks.11", "top", "head"}
    planned = run.planned()
    assert planned is not None
    assert planned.epochs == run.executed().epochs


def test_an_unfinished_run(make_run, tmp_path):
    run = RunFiles.from_workdir(make_run(tmp_path, epochs=8), "mine")
    assert (run.name, run.finished) == ("mine", False)
    assert run.scores["epoch"] == 6
    assert len(run.executed().epochs) == 8


def test_a_run_without_a_timeline(make_run, tmp_path):
    workdir = make_run(tmp_path)
    (workdir / "timeline.json").unlink()
    run = RunFiles.from_workdir(workdir)
    assert (run.planned(), run.blocks) == (None, ["blocks.11", "top", "head"])


def test_a_new_run(make_run, tmp_path):
    run = RunFiles.from_workdir(make_run(tmp_path, epochs=0))
    assert (run.finished, run.scores, run.frozen_unchanged) == (False, {}, False)


def test_a_changed_block_is_no_proof(make_run, tmp_path):
    workdir = make_run(tmp_path)
    path = workdir / "certificates" / "02-top.json"
    path.write_text(path.read_text().replace("ab" * 32, "cd" * 32, 1))
    assert not RunFiles.from_workdir(workdir).frozen_unchanged


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not the folder of a run: it has no config.json"):
        RunFiles.from_workdir(tmp_path)


def test_damaged_files_are_named(make_run, tmp_path):
    workdir = make_run(tmp_path)
    (workdir / "goodput.json").write_text("{")
    with pytest.raises(ValueError, match=r"goodput.json is damaged"):
        RunFiles.from_workdir(workdir).json("goodput.json")


@pytest.mark.parametrize(
    ("count", "most", "kept"), [(3, 5, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (5, 2, [0, 4])]
)
def test_thinning_keeps_the_ends(count, most, kept):
    assert thin_out(range(count), most) == kept
