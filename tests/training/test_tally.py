import dataclasses

from transfer_jax.training.tally import Tally


def test_means_of_an_epoch():
    tally = Tally()
    for loss in (1.0, 2.0, 6.0):
        tally.add({"loss": loss, "accuracy": 0.5}, {"head": loss / 10})
    assert tally.end_epoch() == {"loss": 3.0, "accuracy": 0.5, "rates": {"head": 0.3}}
    tally.add({"loss": 7.0}, {})
    assert tally.end_epoch() == {"loss": 7.0, "rates": {}}


def test_an_epoch_goes_on_behind_a_checkpoint():
    tally = Tally(train_seconds=1.5)
    tally.add({"loss": 1.0}, {"top": 2.0})
    again = Tally(**dataclasses.asdict(tally))
    again.add({"loss": 2.0}, {"top": 4.0})
    assert again.train_seconds == 1.5
    assert again.end_epoch() == {"loss": 1.5, "rates": {"top": 3.0}}
