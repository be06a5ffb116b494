"""The check by mutants finds what no test looks at, and nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

import tests.mutation.__main__ as main
from tests.mutation.collected import Outcome, Trial
from tests.mutation.module import ROOT, SubjectModule
from tests.mutation.mutations import mutants
from tests.mutation.subjects import SUBJECTS, path_of

SOURCE = '''
def held(items, most):
    """Docs."""
    logger.info("%d", len(items) + 1)
    if items and len(items) <= most:
        items.clear()
    return [item - 1 for item in items if item]


def validate(items):
    assert items == 1
'''


def test_a_mutant_is_one_change_of_what_is_decided_or_done() -> None:
    changes = [str(mutant) for mutant in mutants(ast.parse(SOURCE))]
    assert changes == [
        "held: items and len(items) <= most  ->  not (items and len(items) <= most)",
        "held: items and len(items) <= most  ->  items or len(items) <= most",
        "held: len(items) <= most  ->  len(items) < most",
        "held: items.clear()  ->  pass",
        "held: return [item - 1 for item in items if item]  ->  return None",
        "held: item - 1  ->  item + 1",
        "held: 1  ->  2",
        "held: item  ->  True",
        "held: item  ->  not item",
    ]


def test_each_is_applied_where_it_stands() -> None:
    for number, mutant in enumerate(mutants(ast.parse(SOURCE))):
        tree = ast.parse(SOURCE)
        same = list(mutants(tree))[number]
        same.apply()
        compile(tree, "held", "exec")
        assert ast.unparse(tree) != ast.unparse(ast.parse(SOURCE)), mutant


CHECK = """
import sys
import torch, hypothesis.stateful  # once, instead of in every fork
from tests.mutation import __main__ as mutation
name, mutant = "student/queue/flow.py", sys.argv[1]
for test, accepted in (("orders", {}), ("orders", {mutant: "why"}), ("label_queue_turns", {mutant: "why"})):
    mutation.SUBJECTS[name] = (test,)
    mutation.read_accepted = lambda text: {name: accepted}
    print("exit code", mutation.main([name, "--only", "return self.fixed"]))
"""
MUTANT = "Flow.cuts_fixed: return self.fixed or self.task_size is not None  ->  return None"


@pytest.mark.slow
def test_a_survivor_is_named_unless_it_is_accepted_and_who_is_accepted_must_survive() -> None:
    """Of the bounds of a queue the tests of orders look at none."""
    command = [sys.executable, "-c", CHECK, MUTANT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert _without_times(done.stdout) == [
        *(
            f"student/queue/flow.py  {MUTANT}  (no test runs this)",
            "flow.py 1 0 0",
            "1 to look at",
            "exit code 1",
        ),
        *("flow.py 1 0 1", "0 to look at", "exit code 0"),
        f"student/queue/flow.py  {MUTANT}: is killed, or gone; take it out of accepted.txt",
        *("flow.py 1 1 0", "1 to look at", "exit code 1"),
    ], done.stderr


def test_what_was_left_out_is_counted_apart_and_no_accepted_one_is_missed_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "student/queue/flow.py"
    subject = SubjectModule(name)
    left_out = subject.labels[0]
    monkeypatch.setattr(main, "read_accepted", lambda text: {name: {left_out: "why"}})
    report = main.Report([name], [], killers=False)
    trials = [Trial(name, 0, Outcome.LEFT_OUT, "", 0.0, 0), Trial(name, 1, Outcome.KILLED, "a test", 0.1, 1)]
    assert report.follow(iter(trials)) and not report.to_look_at and not capsys.readouterr().out
    lines = report.summary()
    assert "1 of what is done at import left out" in lines
    assert "flow.py 1 1 0" in _without_times(lines)


def _without_times(text: str) -> list[str]:
    """Lines of a report; of the table what is of a module: its mutants, those killed and those accepted."""
    lines = []
    for line in text.splitlines():
        if row := re.match(r"\| student/queue/(\S+) +\| +(\d+) \| +(\d+) \| +(\d+) \|", line):
            lines.append(" ".join(row.groups()))
        elif not line.startswith("|"):
            lines.append(re.sub(r":[0-9]+|, after \d+ s", "", line.strip()))
    return lines


def test_every_module_and_test_that_is_named_is_there() -> None:
    for name, tests in SUBJECTS.items():
        assert (ROOT / "edldist" / name).is_file()
        for test in tests:
            assert (ROOT / path_of(test)).is_file()
