"""Of all that a failed program printed, the last line of a job repeats the one that says why."""

from __future__ import annotations

import json

import pytest

from edldist_launch.local.last_words import MOST_SHOWN, own_error, refusal

TORCHRUN = """W1126 23:10:57.9 1050 torch/distributed/elastic/agent/api.py:753] Received 15 death signal
Traceback (most recent call last):
  File "agent.py", line 129, in <module>
    main()
torch.distributed.elastic.multiprocessing.api.SignalException: Process 1050 got signal: 15
"""


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", ""),
        ("loading\nall is well\n", ""),
        ("23:10:07 INFO    teacher t-0: loading m:f on cpu\nerror: no module named m\n", "no module named m"),
        ("Traceback (most recent call last):\n  File 's.py'\nValueError: bad\n", "ValueError: bad"),
        ("Traceback (most recent call last):\n  File 's.py'\nKeyError: 'x'\nbye\n", "KeyError: 'x'"),
        ("[rank0]: Traceback\n[rank0]:   File 's.py'\n[rank0]: OSError: gone\n", "OSError: gone"),
        (f"a.b.errors.ModelError: no\n{TORCHRUN}", "a.b.errors.ModelError: no"),
        (
            "RuntimeError: x\n2026-11-27 23:11:09 ERROR   student: giving up: PoisonTaskError: y\n",
            "giving up: PoisonTaskError: y",
        ),
        ("2026-11-27 23:11:09.042 ERROR   student: giving up: it hangs\n", "giving up: it hangs"),
        ('{"t": 1.5, "level": "error", "message": "no module\\nnamed m"}\n', "no module"),
        ('{"t": 1.5, "level": "info", "message": "OSError: none of ours"}\n', ""),
        ('{"t": 1.5, "level": "error"}\n{"t": [\n', ""),
        ("AssertionError\n", "AssertionError"),
        ("a.ContractError: it cannot be labelled:\nmodel m:f returned a  str\nbye\n",)
        + ("a.ContractError: it cannot be labelled: model m:f returned a str",),
        ("ValueError: it ends here:\n", "ValueError: it ends here:"),
        ("  indented.Error: a part of a traceback\n", ""),
        ("the Error: of a sentence\n", ""),
    ],
)
def test_the_last_error_that_is_the_programs_own(output: str, said: str) -> None:
    assert own_error(output) == said


def test_a_long_one_is_cut() -> None:
    assert own_error(f"ValueError: {'x' * 2000}") == f"ValueError: {'x' * (MOST_SHOWN - 12)} ..."


def test_all_of_a_refusal_is_kept_with_what_to_do_about_it() -> None:
    said = "error: earlier\nerror: out/toy holds a run:\n  args[1]: 1 -> 2\nChoose: --fresh\n"
    assert refusal(said) == "out/toy holds a run:\n  args[1]: 1 -> 2\nChoose: --fresh"
    assert refusal("a table\nof figures\n") == refusal("") == ""
    told = json.dumps({"t": 1.0, "level": "error", "message": "out/toy holds a run:\n  1 -> 2"})
    assert refusal(f"a table\n{told}\n") == "out/toy holds a run:\n  1 -> 2"
