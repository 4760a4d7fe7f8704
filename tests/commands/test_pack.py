from transfer_jax.cli import main
from transfer_jax.data import from_folder, load_dataset


def test_a_folder_is_packed_and_read(tmp_path, capsys):
    root = tmp_path / "photos"
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    out = tmp_path / "packed"
    assert main(["pack", str(root), str(out), "--shards", "2"]) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert f"3 images in {out} (3 images written)" in printed
    assert f"transfer-jax train --images records:{out}" in printed
    packed = load_dataset(f"records:{out}")
    assert sorted(packed.names) == [*from_folder(root).names]
    assert main(["pack", str(root), str(out)]) == 0
    assert "all shards were there" in capsys.readouterr().out.replace("\n", " ")


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    assert main(["pack", str(tmp_path / "nothing"), str(tmp_path / "packed")]) == 2
    assert "nothing' does not exist" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "packed").exists()
