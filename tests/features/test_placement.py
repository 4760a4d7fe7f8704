from types import SimpleNamespace

import jax
import pytest

from transfer_jax.features import choose_tier, placement


@pytest.mark.parametrize(
    ("platform", "stats", "memory", "expected"),
    [
        ("gpu", {"bytes_limit": 300, "bytes_in_use": 100}, 1000, "device"),
        ("gpu", {"bytes_limit": 300, "bytes_in_use": 101}, 1000, "memory"),
        ("tpu", None, 1000, "memory"),
        ("cpu", {"bytes_limit": 300, "bytes_in_use": 100}, 200, "memory"),
        ("cpu", None, 199, "disk"),
        ("gpu", {"bytes_limit": 300, "bytes_in_use": 299}, 0, "disk"),
    ],
)
def test_choose_tier_takes_the_fastest_place_with_room(monkeypatch, platform, stats, memory, expected):
    device = SimpleNamespace(platform=platform, memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(placement.psutil, "virtual_memory", lambda: SimpleNamespace(available=memory))
    assert choose_tier(100) == expected
