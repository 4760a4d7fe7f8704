import csv
import gzip

import pytest

from transfer_jax.data.table_text import read_text_table

ROWS = [["path", "label"], ["a.png", "Bär"], ["b.png", "Hund"]]


def encoded(separator=",", end="\n", encoding="utf-8"):
    return "".join(separator.join(row) + end for row in ROWS).encode(encoding)


@pytest.mark.parametrize(
    "content",
    [
        encoded(encoding="utf-8-sig"),
        encoded(encoding="utf-16"),
        encoded(encoding="utf-16-be"),
        encoded(encoding="utf-32"),
        encoded(";"),
        encoded("\t", "\r\n"),
        encoded("|", "\r"),
        encoded(", "),
        b"sep=;\r\n" + encoded(";", "\r\n"),
        gzip.compress(encoded(), mtime=0),
        encoded() + b"\n\n",
    ],
)
def test_encodings_and_separators(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    table = read_text_table(tmp_path / "t")
    assert table.rows == ROWS
    assert table.notes == ()
    first = 2 if content.startswith(b"sep") else 1
    assert table.lines == [first, first + 1, first + 2]


def test_cells_may_be_long(tmp_path):
    limit, mask = csv.field_size_limit(), "1 2 " * 50_000
    (tmp_path / "t").write_text(f"path,mask,label\na.png,{mask},cat\n")
    assert read_text_table(tmp_path / "t").rows[1] == ["a.png", mask, "cat"]
    assert csv.field_size_limit() == limit


def test_other_encodings_are_read_with_a_note(tmp_path):
    (tmp_path / "t").write_bytes(encoded(encoding="cp1252"))
    table = read_text_table(tmp_path / "t")
    assert table.rows == ROWS
    assert "not UTF-8 (line 2) and is read as Windows-1252" in table.notes[0]


def test_comments_and_empty_lines_are_left_out(tmp_path):
    (tmp_path / "t").write_text("# made by me\n# 2020\npath,label\n  \na.png,x\n,\n")
    table = read_text_table(tmp_path / "t")
    assert table.rows == [["path", "label"], ["a.png", "x"]]
    assert table.lines == [3, 5]


def test_labels_with_other_separators_do_not_split_rows(tmp_path):
    (tmp_path / "t").write_text("a.png;0,5\nb.png;1,5\n")
    assert read_text_table(tmp_path / "t").rows == [["a.png", "0,5"], ["b.png", "1,5"]]
    (tmp_path / "t").write_text("path,label\na.png,x|y\nb.png,z\n")
    assert read_text_table(tmp_path / "t").rows[1] == ["a.png", "x|y"]


def test_lists_with_spaces(tmp_path):
    (tmp_path / "t").write_text("a.png 0\nb.png   1\n")
    assert read_text_table(tmp_path / "t").rows == [["a.png", "0"], ["b.png", "1"]]


def test_fields_of_several_lines_count_as_lines(tmp_path):
    (tmp_path / "t").write_text('path,text,label\na.png,"one, two\nthree",x\nb.png,"5 ""inch""",y\n')
    table = read_text_table(tmp_path / "t")
    assert table.rows[1:] == [["a.png", "one, two\nthree", "x"], ["b.png", '5 "inch"', "y"]]
    assert table.lines == [1, 2, 4]


@pytest.mark.parametrize(
    "tail",
    [
        'b.png,"dog\nc.png,cat\n',  # Open until the end.
        '"b.png,dog\nc.png,cat"\nd.png,cat\n',  # Closed by a quote of another row.
        '"b.png,dog\nc.png,"cat"\nd.png,cat\n',
    ],
)
def test_quotes_that_do_not_close_raise_with_their_line(tmp_path, tail):
    (tmp_path / "t").write_text("path,label\na.png,cat\n" + tail)
    with pytest.raises(ValueError, match="line 3: a quote opens in this row and does not close correctly"):
        read_text_table(tmp_path / "t")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04\0\0", "a workbook of a spreadsheet program, or a zip file"),
        (b"PAR1\0\0", "a Parquet file"),
        (b' [{"path": "a.png"}]', "a JSON file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"path,label\na.png,\0\xff\n", "contains zero bytes"),
    ],
)
def test_files_of_other_kinds_raise(tmp_path, content, kind):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=kind):
        read_text_table(tmp_path / "t.csv")
