"""The row of HTTP engines' answers, at a size of which nothing but its order can be said."""

from __future__ import annotations

from edldist_benchmarks import answers
from edldist_benchmarks.figures import Settings


def test_answers_of_either_engine_are_read_and_packed(monkeypatch):
    for name, value in {"TOKENS": 12, "VOCABULARY": 700, "KEPT": (4, 16)}.items():
        monkeypatch.setattr(answers, name, value)
    figures = answers.measure_answers(Settings(repeats=3)).figures
    assert [figure.what.partition(",")[0] for figure in figures] == [
        *("topk:4 of vLLM", "topk:4 of SGLang", "topk:16 of vLLM", "topk:16 of SGLang")
    ]
    assert all(figure.value > 0 for figure in figures)
