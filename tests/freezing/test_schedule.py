import pytest

from transfer_jax.freezing import Phase, Schedule

HEAD = Phase(name="head", train="head", epochs=3, learning_rate=1e-3)
TOP = Phase(name="top", train="top( 2 )", epochs=1, learning_rate=1e-4, augment=True, views=4, clip_norm=1.0)


def test_json_round_trip_and_hash():
    schedule = Schedule((HEAD, TOP))
    again = Schedule.from_json(schedule.to_json())
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert str(schedule) == "head: head x 3 -> top: top(2) x 1"


@pytest.mark.parametrize(
    ("phases", "message"), [((), "at least one phase"), ((HEAD, HEAD), "different names, got head, head")]
)
def test_invalid_schedules_raise(phases, message):
    with pytest.raises(ValueError, match=message):
        Schedule(phases)


def test_schedules_are_joined_by_plus():
    assert (Schedule((HEAD,)) + Schedule((TOP,))).phases == (HEAD, TOP)


def test_clock_of_a_phase_and_of_the_schedule():
    names = ("one", "two", "three", "four")
    clocks = ("phase", "schedule", "phase", "schedule")
    schedule = Schedule(
        tuple(
            Phase(name=name, train="head", epochs=index + 1, learning_rate=1.0, clock=clock)
            for index, (name, clock) in enumerate(zip(names, clocks, strict=True))
        )
    )
    assert [schedule.clock(index) for index in range(4)] == [(0, 1), (0, 6), (0, 3), (2, 6)]
