"""What a reader sees: the same rows on a terminal, in plain text and in Markdown."""

import sys

from keras_autoinit.rendering import markdown_table, recommendation_rows, scheme_rows, show
from keras_autoinit.schemes import REGISTRY


def test_plain_text_where_there_is_no_terminal(capsys):
    show(("a", "b"), [("1", "two"), ("three", "4")], ["done"])
    assert capsys.readouterr().out == "a      b\n1      two\nthree  4\ndone\n"


def test_a_rich_table_on_a_terminal_with_nothing_lost(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    show(("name", "value"), [("[red]x[/red]", "autoinit>he")], ["done"])
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "autoinit>he" in out
    assert "done" in out
    assert "┃" in out or "|" in out


def test_markdown():
    assert markdown_table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_every_scheme_and_alias_is_listed_once():
    names = [name for row in scheme_rows() for name in (row[0], *filter(None, row[1].split(", ")))]
    assert sorted(names) == sorted(REGISTRY)


def test_no_cell_of_the_table_breaks_a_markdown_row():
    assert not any("|" in cell for row in recommendation_rows() for cell in row)
