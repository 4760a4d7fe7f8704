from types import SimpleNamespace

import pytest

from transfer_jax.storage.signed_requests import can_sign


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"client_kwargs": {"region_name": "eu-west-1"}}, True),
        ({"client_kwargs": {"verify": False}}, False),
        ({"anon": True}, False),
        ({"req_kw": {"RequestPayer": "requester"}}, False),
    ],
)
def test_file_systems_with_options_of_their_own_are_asked_themselves(options, expected):
    assert can_sign(SimpleNamespace(**options)) == expected
