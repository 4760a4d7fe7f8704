import pytest

from transfer_jax.report.page.run_files import Record, thinned


def test_a_finished_run(make_run, tmp_path):
    record = Record.of(make_run(tmp_path / "toy"))
    assert (record.name, record.finished, record.proven) == ("toy", True, True)
    assert record.blocks == ["stem", "blocks.1", "blocks.11", "top", "head"]
    assert record.spans() == [
        {"name": "head", "first": 0, "last": 6},
        {"name": "top", "first": 6, "last": 10},
    ]
    assert [line["at"] for line in record.evaluations] == [6, 10]
    assert len(record.measured["rgn"]) == 10
    assert set(record.measured["rgn"][-1]["blocks"]) == {"blocks.11", "top", "head"}
    planned = record.planned()
    assert planned is not None
    assert planned.epochs == record.executed().epochs


def test_a_run_under_way(make_run, tmp_path):
    record = Record.of(make_run(tmp_path, epochs=8), "mine")
    assert (record.name, record.finished) == ("mine", False)
    assert record.scores["epoch"] == 6
    assert len(record.executed().epochs) == 8


def test_a_run_of_before_there_were_plans(make_run, tmp_path):
    workdir = make_run(tmp_path)
    (workdir / "timeline.json").unlink()
    record = Record.of(workdir)
    assert (record.planned(), record.blocks) == (None, ["blocks.11", "top", "head"])


def test_a_run_that_has_just_begun(make_run, tmp_path):
    record = Record.of(make_run(tmp_path, epochs=0))
    assert (record.finished, record.scores, record.proven) == (False, {}, False)


def test_a_changed_block_is_no_proof(make_run, tmp_path):
    workdir = make_run(tmp_path)
    path = workdir / "certificates" / "02-top.json"
    path.write_text(path.read_text().replace("ab" * 32, "cd" * 32, 1))
    assert not Record.of(workdir).proven


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not the folder of a run: it has no config.json"):
        Record.of(tmp_path)


def test_damaged_files_are_named(make_run, tmp_path):
    workdir = make_run(tmp_path)
    (workdir / "goodput.json").write_text("{")
    with pytest.raises(ValueError, match=r"goodput.json is damaged"):
        Record.of(workdir).json("goodput.json")


@pytest.mark.parametrize(
    ("count", "most", "kept"), [(3, 5, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (5, 2, [0, 4])]
)
def test_thinning_keeps_the_ends(count, most, kept):
    assert thinned(range(count), most) == kept
