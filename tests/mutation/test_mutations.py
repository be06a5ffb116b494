"""The check by mutants finds what no test looks at, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.mutation import __main__ as mutation
from tests.mutation.mutations import mutants

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
from tests.mutation import __main__ as mutation
mutation.SUBJECTS["student/queue/flow.py"] = (sys.argv[1],)
mutation.read_accepted = lambda text: {"student/queue/flow.py": dict.fromkeys(sys.argv[2:], "why")}
sys.exit(mutation.main(["student/queue/flow.py", "--only", "return self.fixed"]))
"""
MUTANT = "Flow.cuts_fixed: return self.fixed or self.task_size is not None  ->  return None"


@pytest.mark.parametrize(
    ("test", "accepted", "code", "last"),
    [
        ("orders", [], 1, "1 mutants,   1 survive\n1 to look at"),
        ("orders", [MUTANT], 0, "1 mutants,   1 survive\n0 to look at"),
        ("label_queue", [], 0, "1 mutants,   0 survive\n0 to look at"),
        ("label_queue", [MUTANT], 1, "1 mutants,   0 survive\n1 to look at"),
    ],
)
def test_a_survivor_is_named_unless_it_is_accepted_and_who_is_accepted_must_survive(
    test: str, accepted: list[str], code: int, last: str
) -> None:
    """Of the bounds of a queue the tests of orders look at none."""
    command = [sys.executable, "-c", CHECK, test, *accepted]
    done = subprocess.run(command, cwd=mutation.ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.endswith(last + "\n")) == (code, True), done.stdout + done.stderr
    assert (MUTANT in done.stdout) == bool(code)


def test_every_module_and_test_that_is_named_is_there() -> None:
    for name, tests in mutation.SUBJECTS.items():
        assert (mutation.ROOT / "edldist" / name).is_file()
        for test in tests:
            assert (mutation.ROOT / f"tests/unit/test_{test}.py").is_file()
