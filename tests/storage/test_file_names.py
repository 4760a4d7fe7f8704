import pytest

from transfer_jax.storage.file_names import file_name

ODD = ["", "..", "a/b", "a\\b", "/etc/passwd", "../../x", "nul\0", "CON", "con.json", ".hidden", "a\nb"]
ODD += [" ", "a ", "x" * 300, "x" * 301, "日" * 100, "caf\udce9", "a:b", "a*b", "a?b", "<b>", "🐶", "-rf"]


@pytest.mark.parametrize("name", ["head", "03-blocks.14", "top 2", "größe", "日本", "a+b=c(d),e@f_g"])
def test_usual_names_stay(name):
    assert file_name(name) == name


def test_odd_names_become_safe_and_stay_distinct(tmp_path):
    found = [file_name(name) for name in ODD]
    assert len({name.casefold() for name in found}) == len(ODD)
    for name in found:
        assert len(name.encode()) <= 80
        assert name[0] not in ".-"
        (tmp_path / name).touch(exist_ok=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(found)
    assert [file_name(name) for name in ODD] == found
