import pytest

from transfer_jax.freezing import Measured, controller
from transfer_jax.freezing.controllers import find_controller, needs_plasticity, next_frozen_depth

BLOCKS = ("a", "b", "c", "d", "e", "f")


def measured(
    frozen_depth: int = 0, norms=(1.0,) * 6, *, rate: float = 1.0, plasticity=(0.0,) * 6
) -> Measured:
    active = BLOCKS[frozen_depth:]
    return Measured(
        epoch=1.0,
        frozen_depth=frozen_depth,
        blocks=BLOCKS,
        learning_rate=rate,
        grad_norm=dict(zip(active, norms[frozen_depth:], strict=True)),
        plasticity=dict(zip(active, plasticity[frozen_depth:], strict=True)),
    )


@pytest.mark.parametrize(
    ("before", "now", "frozen_depth"),
    [
        # changes 0, 0.1, 0.2, 0.3, 0.4, 0.5; their median is 0.25
        (measured(norms=(10, 10, 10, 10, 10, 10)), measured(norms=(10, 9, 8, 7, 6, 5)), 3),
        (measured(norms=(10, 10, 10, 10, 10, 10)), measured(norms=(15, 14, 13, 12, 11, 10)), 0),
        # of the active blocks: 0.2, 0.3, 0.4, 0.5 with median 0.35
        (measured(2, (0, 0, 10, 10, 10, 10)), measured(2, (0, 0, 8, 7, 6, 5)), 4),
        (
            measured(1, (0, 10, 10, 10, 10, 10)),
            measured(2, (0, 0, 8, 7, 6, 5)),
            2,
        ),  # other active blocks
    ],
)
def test_autofreeze_by_hand(before, now, frozen_depth):
    assert next_frozen_depth("autofreeze", [before, now]) == frozen_depth
    assert next_frozen_depth("autofreeze", [now]) == now.frozen_depth


@pytest.mark.parametrize(
    ("now", "frozen_depth"),
    [
        (measured(norms=(9, 9, 9, 9, 9, 1)), 2),
        (measured(norms=(9, 1, 9, 9, 9, 9)), 1),
        (measured(2, (0, 0, 9, 9, 9, 1)), 3),
        (measured(5, (0, 0, 0, 0, 0, 1)), 5),
        (measured(6), 6),
    ],
)
def test_pipetransformer_by_hand(now, frozen_depth):
    assert next_frozen_depth("pipetransformer", [now]) == frozen_depth


def test_egeria_freezes_the_lowest_block_when_its_plasticity_stops_changing():
    def history(*values: float):
        return [measured(plasticity=(value, 0, 0, 0, 0, 0)) for value in values]

    assert next_frozen_depth("egeria", history(0, 0.1, 0.2)) == 0  # a single slope is not compared
    assert next_frozen_depth("egeria", history(0, 0.1, 0.2, 0.3)) == 0
    assert next_frozen_depth("egeria", history(0, 0.1, 0.2, 0.23, 0.23)) == 1  # slopes 0.1, 0.065, 0.015
    assert (
        next_frozen_depth("egeria", history(0, 0.1, 0.2, 0.25, 0.25)) == 0
    )  # 0.025 is more than a fifth of 0.1


def test_egeria_unfreezes_all_after_a_rate_drop():
    frozen = [measured(rate=1.0), measured(2, rate=0.5), measured(3, rate=0.06)]
    assert next_frozen_depth("egeria", frozen) == 3
    assert next_frozen_depth("egeria", [*frozen, measured(3, rate=0.05)]) == 0
    assert needs_plasticity("egeria")
    assert not needs_plasticity("autofreeze")


def test_registered_controller_is_found_by_name():
    @controller
    def half_of_it(history):
        return len(history[-1].blocks) // 2

    assert next_frozen_depth("half_of_it", [measured()]) == 3
    assert find_controller("half_of_it") is half_of_it


@pytest.mark.parametrize("frozen_depth", [-1, 7, 1.5, None, True, "a"])
def test_invalid_frozen_depth_raises(frozen_depth):
    controller(lambda history: frozen_depth)
    with pytest.raises(
        ValueError,
        match=rf"'<lambda>' returned the frozen depth {frozen_depth!r}; it must be an integer",
    ):
        next_frozen_depth("<lambda>", [measured()])


def test_unknown_controller_raises():
    with pytest.raises(ValueError, match=r"unknown controller .freezer.; known .*: .*autofreeze, egeria"):
        find_controller("freezer")
