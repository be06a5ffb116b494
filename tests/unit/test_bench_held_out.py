"""What students learn from each codec, at a size of which little but its order can be said."""

from __future__ import annotations

import pytest
import torch

from edldist_benchmarks import held_out
from edldist_benchmarks.figures import Settings


@pytest.fixture(autouse=True)
def small(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, value in {"VOCABULARY": 300, "STEPS": 12, "WINDOW": 24, "BATCH": 4}.items():
        monkeypatch.setattr(held_out, name, value)
    yield
    torch.set_num_threads(threads)


def test_every_codec_teaches_and_the_text_alone_teaches_less(capsys):
    settled = held_out.settle(teacher_steps=80)
    untaught = held_out.held_out_loss(held_out.WordModel(64), settled.test)
    held_out._print_table(settled, ["topk:8", "rs:8", "hidden"], [0], steps=12)
    lines = capsys.readouterr().out.splitlines()[4:]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[0] for row in rows] == [held_out.WHOLE, "topk:8", "rs:8", "hidden", "none, the text alone"]
    assert [row[1] for row in rows] == ["600", "28", "16", "384", ""]
    assert all(float(row[2]) < untaught for row in rows)


def test_the_row_has_a_line_for_each_codec(monkeypatch):
    monkeypatch.setattr(held_out, "BRIEFLY", held_out.BRIEFLY[:2])
    result = held_out.measure_held_out(Settings(repeats=1))
    assert [figure.what.split(":")[0] for figure in result.figures] == ["dense", "topk"]
    assert result.figures[0].value == result.figures[0].limit
