from transfer_jax.freezing import feature_extraction, five_steps, frozen_base
from transfer_jax.freezing.labels import boundary, labels
from transfer_jax.models.functional import split


def test_feature_extraction_demands_the_cache():
    (phase,) = feature_extraction(epochs=7, learning_rate=0.1).phases
    assert (phase.train, phase.epochs, phase.learning_rate) == ("head", 7, 0.1)
    assert (phase.cache, phase.augment) == ("require", False)


def test_frozen_base_augments_afresh():
    (phase,) = frozen_base(epochs=7, learning_rate=0.1).phases
    assert (phase.train, phase.epochs, phase.learning_rate) == ("head", 7, 0.1)
    assert phase.augment
    assert not phase.cacheable


def test_five_steps_train_the_head_first_and_then_the_top_with_it(make_toy):
    model = make_toy()
    first, second = five_steps("top(1)", head_learning_rate=0.1, learning_rate=0.01, views=3).phases
    ends = [
        boundary(
            labels(split(model)[1], phase.selector, model.backbone.block_names), model.backbone.block_names
        )
        for phase in (first, second)
    ]
    assert ends == ["pre_logits", "blocks.11"]
    assert first.learning_rate > second.learning_rate
    assert second.views == 3
    assert second.norm == "frozen"
