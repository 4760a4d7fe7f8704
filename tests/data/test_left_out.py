from collections import Counter

from transfer_jax.data.left_out import LeftOut, left_out_notes


def test_nothing_is_left_out():
    assert left_out_notes(Counter()) == ()


def test_files_are_counted_by_kind():
    numbers: LeftOut = Counter(
        {
            **{("ending", ".xml"): 3, ("ending", ".txt"): 1200, ("ending", ""): 2, ("ending", ".heic"): 7},
            **{("hidden", ""): 3, ("special", ""): 1},
            **{("folder", "@eaDir"): 3, ("folder", ".git"): 1, ("link", "up"): 1},
        }
    )
    assert left_out_notes(numbers) == (
        "images left out: 7 .heic; these formats are not read, convert the files to JPEG or PNG",
        "files left out: 1,200 .txt, 3 .xml, 2 without an ending, 3 hidden or system files, "
        "1 pipes, sockets or devices",
        "hidden or system folders left out: '@eaDir' (3 times), '.git'",
        "links to folders that contain them or are read already, left out: 'up'",
    )


def test_many_kinds_are_summed():
    (note,) = left_out_notes(Counter({("ending", f".e{i}"): 20 - i for i in range(12)}))
    assert note == "files left out: " + ", ".join(f"{20 - i} .e{i}" for i in range(8)) + ", 42 of other kinds"


def test_names_that_are_not_utf_8_are_printable():
    (note,) = left_out_notes(Counter({("folder", ".\udce9"): 1}))
    assert note.isascii()
