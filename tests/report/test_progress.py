import pytest

from transfer_jax.report.progress import Meter


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_items_of_an_earlier_run_do_not_count(clock):
    meter = Meter(100, 50, clock=clock)
    assert (meter.rate, meter.mean_rate, meter.remaining) == (None, None, None)
    clock.now += 10
    meter.advance(20)
    assert meter.done == 70
    assert meter.rate == meter.mean_rate == pytest.approx(2.0)
    assert meter.remaining == pytest.approx(15.0)


def test_items_that_are_reported_together_took_the_time_before(clock):
    meter = Meter(51, clock=clock)
    clock.now += 8
    meter.advance(50)
    clock.now += 0.0005
    meter.advance(1)
    assert meter.rate == pytest.approx(51 / 8, rel=0.001)


def test_a_rate_is_that_of_the_last_seconds(clock):
    meter = Meter(10_000, window=30, clock=clock)
    for _ in range(60):
        clock.now += 1
        meter.advance(1)
    for _ in range(40):
        clock.now += 1
        meter.advance(10)
    assert meter.rate == pytest.approx(10.0)
    assert meter.mean_rate == pytest.approx(4.6)
    assert meter.elapsed == pytest.approx(100.0)


def test_a_short_task_has_no_rate(clock):
    meter = Meter(10, clock=clock)
    clock.now += 0.01
    meter.advance(10)
    assert (meter.rate, meter.mean_rate) == (None, None)


def test_a_task_that_waits_slows_down(clock):
    meter = Meter(100, window=30, clock=clock)
    clock.now += 1
    meter.advance(10)
    clock.now += 100
    meter.advance(1)
    assert meter.rate == pytest.approx(1 / 100)
    assert meter.remaining == pytest.approx(8900)
