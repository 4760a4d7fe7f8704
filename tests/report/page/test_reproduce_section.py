import json

from transfer_jax.report.page.elements import Table, Text
from transfer_jax.report.page.reproduce_section import reproduce_section
from transfer_jax.report.page.run_files import RunFiles


def test_the_start_and_earlier_configs_are_shown(make_run, tmp_path):
    make_run(tmp_path)
    images = {"train": {"content": "3" * 64}, "evaluation": {"content": "4" * 64}}
    start = {"weights": "timm.a1", "file": "cache/a1.safetensors", "sha256": "12" * 32, **images}
    (tmp_path / "start.json").write_text(json.dumps(start))
    change = {"until_step": 1200, "changes": ["seed was 0, now 1", "dropout was 0.1, now 0.2"], "config": {}}
    (tmp_path / "earlier_configs.json").write_text(json.dumps([change]))
    parts = [*reproduce_section(RunFiles.from_workdir(tmp_path)).parts]
    (text,) = (part for part in parts if isinstance(part, Text))
    assert text.paragraphs == [
        "Until step 1,200, the run had another config: seed was 0, now 1; dropout was 0.1, now 0.2.",
        "The last config alone does not repeat the run.",
    ]
    (table,) = (part for part in parts if isinstance(part, Table) and part.caption == "Weights and images")
    assert [row[1] for row in table.rows] == [
        "timm.a1",
        "cache/a1.safetensors",
        "12" * 32,
        "3" * 64,
        "4" * 64,
    ]


def test_runs_of_earlier_versions_have_neither(make_run, tmp_path):
    make_run(tmp_path)
    parts = reproduce_section(RunFiles.from_workdir(tmp_path)).parts
    assert not [part for part in parts if isinstance(part, Text)]
    assert "Weights and images" not in [part.caption for part in parts if isinstance(part, Table)]
