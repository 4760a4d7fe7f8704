import json

from transfer_jax.report.page.diagnostics_sections import block_section, calibration_section
from transfer_jax.report.page.elements import Chart, Charts
from transfer_jax.report.page.run_files import RunFiles


def chart_of(section, title: str) -> Chart:
    charts = [chart for part in section.parts if isinstance(part, Charts) for chart in part.charts]
    return next(chart for chart in charts if chart.title == title)


def test_a_cell_ends_where_it_was_measured_and_begins_in_its_phase(make_run, tmp_path):
    workdir = make_run(tmp_path)
    log = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    kept = [line for line in lines if line["kind"] != "depth" or line["step"] in (10, 25, 40)]
    log.write_text("".join(json.dumps(line) + "\n" for line in kept))
    values = chart_of(block_section(RunFiles.from_workdir(workdir)), "Relative gradient norm").spec["data"][
        "values"
    ]
    cells = {(cell["block"], cell["first"], cell["last"]) for cell in values}
    assert cells == {("head", 0, 10), ("head", 10, 25)} | {
        (block, 30, 40) for block in ("blocks.11", "top", "head")
    }


def test_figures_are_summed_up_block_by_block(make_run, tmp_path):
    run = RunFiles.from_workdir(make_run(tmp_path))
    table = chart_of(block_section(run), "Relative gradient norm").table
    assert [column.name for column in table.columns] == ["block", "first", "last", "highest"]
    values = [line["blocks"]["head"] for line in run.block_statistics["rgn"]]
    assert ["head", values[0], values[-1], max(values)] in [[*row] for row in table.rows]


def test_empty_bins_are_left_out_of_the_reliability_curve(make_run, tmp_path):
    section = calibration_section(RunFiles.from_workdir(make_run(tmp_path, diagnosed=True)))
    values = chart_of(section, "Reliability").spec["data"]["values"]
    assert len(values) == 9
    assert all(value["images"] == 5 for value in values)


def test_without_diagnostics_there_is_no_calibration(make_run, tmp_path):
    assert calibration_section(RunFiles.from_workdir(make_run(tmp_path))) is None
