"""How results are drawn: sizes, and tables that show what they are given as it is."""

import pytest

from control_plane.cli import output


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (90_900_000, "90.9 MB"), (5_000_000_000, "5.0 GB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert output.size(count) == shown


def test_a_table_shows_brackets_and_codes_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(output.table(["name", ">count"], [("[/x] [red]y[/] :cat:", "3")]))
    assert "[/x] [red]y[/] :cat:" in capsys.readouterr().out


def test_rows_are_whole_lines_where_there_is_no_screen(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(output.table(["a", "b"], [("x" * 300, "y z " * 50)]))
    assert capsys.readouterr().out.splitlines()[1].rstrip() == f"{'x' * 300}  {'y z ' * 50}".rstrip()


@pytest.mark.parametrize("word", ["serving", "failed", "READY", "[odd]", ""])
def test_a_state_is_its_word_in_a_colour(word: str) -> None:
    assert output.state(word).plain == word
