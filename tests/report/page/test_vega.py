import base64
import gzip

import pytest
import vl_convert

from transfer_jax.report.page.vega import compressed_vega


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compressed_vega.cache_clear()
    yield tmp_path
    compressed_vega.cache_clear()


def test_it_is_put_together_once(empty_home, monkeypatch):
    made = []
    monkeypatch.setattr(
        vl_convert, "javascript_bundle", lambda snippet: made.append(snippet) or "vegaEmbed = 1"
    )
    first = compressed_vega()
    assert gzip.decompress(base64.b64decode(first)) == b"vegaEmbed = 1"
    compressed_vega.cache_clear()
    assert compressed_vega() == first
    assert len(made) == 1


def test_a_home_that_cannot_be_written_does_not_matter(empty_home, monkeypatch):
    (empty_home / "transfer_jax").write_text("a file in the way")
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet: "vegaEmbed = 1")
    assert gzip.decompress(base64.b64decode(compressed_vega())) == b"vegaEmbed = 1"


def test_it_is_small():
    packed = compressed_vega()
    assert b"vegaEmbed" in gzip.decompress(base64.b64decode(packed))
    assert len(packed) < 600_000
