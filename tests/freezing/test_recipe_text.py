import pytest

from transfer_jax.freezing.recipes import feature_extraction, five_steps, l2_sp, top_k
from transfer_jax.freezing.recipes.recipe_text import schedule_from_text
from transfer_jax.freezing.schedule import Schedule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("five_steps", five_steps("top(2)")),
        (
            " five_steps(top(3), epochs=5, learning_rate=1e-3) ",
            five_steps("top(3)", epochs=5, learning_rate=1e-3),
        ),
        (
            "five_steps(unfreeze=from_('blocks.1') | role('norm'))",
            five_steps("from_('blocks.1') | role('norm')"),
        ),
        ("top_k(2, epochs=1)", top_k(2, epochs=1)),
        ("l2_sp(0.2, warmup=0.5)", l2_sp(0.2, warmup=0.5)),
    ],
)
def test_a_text_is_the_call_of_a_recipe(text: str, expected: Schedule) -> None:
    assert schedule_from_text(text) == expected


def test_head_is_short_for_feature_extraction() -> None:
    assert schedule_from_text("head(epochs=3)") == feature_extraction(epochs=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("five_stepz", r"no recipe 'five_stepz'; did you mean five_steps\? The recipes are head, feature_e"),
        ("five_steps(epoch=1)", "five_steps: .*'epoch'; its arguments are unfreeze, head_epochs=60"),
        ("l2_sp(epoc=1)", "l2_sp: .*'epoc'.*; its arguments are alpha=0.1, beta=0.01, the fields of Phase"),
        ("top_k", "top_k: missing a required argument: 'count'"),
        ("head(epochs=0)", "epochs must be at least 1, got 0"),
        ("five_steps(", r"invalid schedule 'five_steps\(': .*; write it as five_steps or five_steps\(top"),
        ("__import__('os').getcwd()", "it starts with the name of a recipe"),
        ("head - head", "invalid schedule|it starts with the name"),
    ],
)
def test_errors_name_the_choices(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule_from_text(text)
