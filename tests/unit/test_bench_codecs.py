"""The table of the codecs, at a size of which nothing but its order can be said."""

from __future__ import annotations

import pytest

from edldist.labels.grammar import GRAMMAR
from edldist_benchmarks import codecs
from edldist_benchmarks.figures import Settings


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"TOKENS": 16, "VOCABULARY": 700, "FEATURES": 24}.items():
        monkeypatch.setattr(codecs, name, value)


def test_every_codec_has_a_line_with_what_it_costs(capsys, monkeypatch):
    assert {text.partition(":")[0] for text in codecs.CODECS} == GRAMMAR.keys()
    one_of_each = {text.partition(":")[0]: text for text in reversed(codecs.CODECS)}
    monkeypatch.setattr(codecs, "CODECS", tuple(one_of_each.values()))
    result = codecs.measure_codecs(Settings(repeats=3))
    assert [figure.what.partition(": ")[0] for figure in result.figures] == list(codecs.CODECS)
    assert all(figure.value > 0 and figure.limit for figure in result.figures)
    codecs._print_table([codecs._measure("topk:8", 3)])
    assert capsys.readouterr().out.splitlines()[-1].startswith("| `topk:8` | 28 |")


def test_more_bytes_mean_less_that_is_lost():
    losses = {
        text: codecs._measure(text, 3) for text in ("dense:fp16", "topk:8", "topk:64", "rs:8", "rs:256")
    }
    assert losses["dense:fp16"].batch_degrees < 0.5
    for less, more in (("topk:8", "topk:64"), ("rs:8", "rs:256")):
        assert losses[less].token_bytes < losses[more].token_bytes
        assert losses[less].batch_degrees > losses[more].batch_degrees
    assert losses["topk:64"].divergence < 3e-4
