"""Tables on the terminal: no name and no number is cut."""

import pytest
from rich.table import Table

from inference_energy.present.tables import print_whole


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_no_word_is_cut(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    name, words = "energy_total_per_output_token_j" * 3, "some words that may stand in several lines " * 4
    table = Table(box=None)
    table.add_column("figure", no_wrap=True)
    table.add_column("interval", no_wrap=True)
    table.add_column("contains")
    table.add_row(name, "1234.5 to 6789.0", f"{words} {'/path' * 20}")
    print_whole(table)
    shown = capsys.readouterr().out
    assert name in shown and "1234.5 to 6789.0" in shown and "/path" * 20 in shown
    assert "…" not in shown
