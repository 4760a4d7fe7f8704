import base64

from transfer_jax.report.page.inline_images import inline_images


def test_images_are_inlined_as_far_as_there_is_room(tmp_path):
    for name, size in (("a.jpg", 40), ("b.png", 50), ("c.jpg", 30), ("d.txt", 1)):
        (tmp_path / name).write_bytes(b"x" * size)
    names = ("a.jpg", "gone.jpg", "d.txt", "b.png", "c.jpg")
    found = list(inline_images(tmp_path, [{"image": name} for name in names], max_bytes=100))
    assert [record["image"] for record, _ in found] == ["a.jpg", "b.png"]
    kind, content = found[1][1].split(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(content) == b"x" * 50
