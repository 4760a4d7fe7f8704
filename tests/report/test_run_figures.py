import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from transfer_jax.report import figure_text
from transfer_jax.report.metrics_log import MetricsLog
from transfer_jax.report.run_figures import draw_confusion, draw_curves
from transfer_jax.report.save_figure import save_figure

ODD = [
    *("$1_$5", "$10_$20", "a$b", r"\$x\$", "^_{}", "100%", "[bold]x", "<b>&'\"", "=1+1", "_x", " ", "  "),
    *("two\nlines", "tab\there", "x" * 300, "x" * 301, "שלום עולם", "日本", "🐶🐱", "e\u0301", "caf\udce9"),
    *("null\0", "A", "a", "\u202eabc", "\u2028"),
]


def log_of(folder, class_names):
    log = MetricsLog(folder / "metrics.jsonl")
    matrix = np.eye(len(class_names), dtype=int).tolist()
    for step, phase in ((5, "$a$_"), (10, "$a$_"), (15, "x" * 300)):
        log.write(step, "train", phase=phase, loss=1 / step, accuracy=0.5, learning_rate=1e-3)
        scores = {"confusion": matrix, "per_class": {name: {"images": 1} for name in class_names}}
        log.write(step, "evaluation", phase=phase, log_loss=0.5, accuracy=0.5, **scores)
    return folder / "metrics.jsonl"


@pytest.mark.parametrize("classes", [2, 25, 150])
def test_figures_are_drawn(tmp_path, classes):
    log = log_of(tmp_path, [f"class {i}" for i in range(classes)])
    for draw in (draw_curves, draw_confusion):
        draw(log, tmp_path / "figure.png")
        with Image.open(tmp_path / "figure.png") as picture:
            assert picture.width >= 300
            picture.verify()


def test_odd_names_are_drawn_as_they_are(tmp_path, monkeypatch, caplog):
    drawn = []

    def keep(figure, path):
        save_figure(figure, path)
        axes = figure.axes[0]
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            drawn.append([label._preprocess_math(label.get_text()) for label in labels])

    monkeypatch.setattr("transfer_jax.report.run_figures.save_figure", keep)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(log_of(tmp_path, ODD), tmp_path / "confusion.png")
    assert drawn[0] == drawn[1]
    shown, formula = zip(*drawn[0], strict=True)
    assert not any(formula)
    assert len({*shown}) == len(ODD)
    for name, text in zip(ODD, shown, strict=True):
        if name.isprintable() and len(name) < 20 and name.strip():
            assert text.split(" #")[0] == name
    assert shown[ODD.index("two\nlines")] == r"two\nlines"
    assert len(shown[ODD.index("x" * 300)]) < 30
    assert caplog.records == []
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.width >= 300


def test_names_without_a_font_end_with_their_number(monkeypatch):
    monkeypatch.setattr(figure_text.font_manager.fontManager, "ttflist", [])
    figure_text.fonts.cache_clear()
    assert figure_text.labels(["a$", "日本", "中国", "größe"]) == [r"a\$", "日本 #2", "中国 #3", "größe"]
    figure_text.fonts.cache_clear()


def test_a_font_that_has_the_letters_is_used(monkeypatch):
    both = {"One": "abc日", "Two": "本日", "DejaVu Sans": "abc"}
    monkeypatch.setattr(figure_text, "_letters", lambda path: frozenset(both.get(path, "abc")))
    entries = [SimpleNamespace(name=name, fname=name) for name in both]
    monkeypatch.setattr(figure_text.font_manager.fontManager, "ttflist", entries)
    figure_text.fonts.cache_clear()
    assert figure_text.fonts(frozenset("日本語")) == (["DejaVu Sans", "One", "Two"], frozenset("語"))
    figure_text.fonts.cache_clear()


def test_a_run_without_scores_has_no_confusion_matrix(tmp_path):
    MetricsLog(tmp_path / "metrics.jsonl").write(1, "train", loss=1.0)
    with pytest.raises(ValueError, match="has no evaluation"):
        draw_confusion(tmp_path / "metrics.jsonl", tmp_path / "confusion.png")
    assert not (tmp_path / "confusion.png").exists()
