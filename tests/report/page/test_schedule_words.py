import pytest

from transfer_jax.freezing import selectors
from transfer_jax.report.page.schedule_words import schedule_in_words, trained_part


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        (selectors.head, "the head"),
        (selectors.all_(), "the whole network"),
        (selectors.top(0), "the head"),
        (selectors.top(1), "the last block and the head"),
        (selectors.top(2), "the last 2 blocks and the head"),
        (selectors.from_("blocks.6"), "all blocks from blocks.6 on and the head"),
        (selectors.role("norm"), "role('norm')"),
    ],
    ids=str,
)
def test_selectors_become_words(selector, words):
    assert trained_part(str(selector)) == words


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (["head"], "One phase trains the head for 1 epoch."),
        (
            ["head", "top(2)", "all_()"],
            "The first phase trains the head for 1 epoch; the second trains the last 2 blocks and the head "
            "for 2 epochs; the third trains the whole network for 3 epochs.",
        ),
    ],
)
def test_phases_become_a_sentence(parts, words):
    phases = [{"train": part, "epochs": epochs} for epochs, part in enumerate(parts, 1)]
    assert schedule_in_words(phases) == words
