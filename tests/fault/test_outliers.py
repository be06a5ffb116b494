"""Workers that do not answer as their group does, on real processes: found, named, and done without.

The student checks every label that it gets: one of another model, used after it was found out, ends it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from edldist.wire.messages import Event
from tests.fault.crew import Crew, crew
from tests.fault.harness import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def party(tmp_path_factory) -> Iterator[Crew]:
    """Two workers that agree, and a student that they label for."""
    student = {
        **{"samples": 400, "batch_size": 20, "step_s": 0.01, "count_wrong": 1},
        "env": {"EDLDIST_AGREEMENT": "every_s=0.3"},
    }
    model = "tests.fault.teachers:minded"
    with crew(tmp_path_factory.mktemp("outliers"), 2, student, model=model) as made:
        yield made


def put_aside(party: Crew, worker: str) -> dict:
    """The event, as soon as the record has it."""
    since = 0

    def found() -> list[dict]:
        nonlocal since
        assert party.student.alive, party.student.tail()
        status = party.job.status(since)  # some of the records at a time
        since = status.seq
        events = [each for each in status.records if isinstance(each, Event)]
        return [
            event.fields
            for event in events
            if event.event == "teacher_put_aside" and event.fields["worker"] == worker
        ]

    return wait_for(f"{worker} to be put aside", found, 60.0)[0]


def wrong_labels(party: Crew) -> int:
    """How many labels the loop has got that no right worker made."""
    return sum(step.get("wrong", 0) for step in party.steps())


@pytest.mark.parametrize(
    ("mind", "says"),
    [
        ("other", "it differs from worker t-"),
        ("nan", "a logit is nan at sample 0"),
        ("constant", "it differs from worker t-"),
        ("wavering", "it answers two ways"),
    ],
)
def test_a_worker_of_another_mind_never_labels(party: Crew, mind: str, says: str):
    before = wrong_labels(party)
    outlier = party.job.teacher(f"odd-{mind}", env={"EDLDIST_TEST_MIND": mind})
    event = put_aside(party, outlier.name)
    assert says in event["reason"] and event["host"] and (event["retracted"], event["consumed"]) == (0, 0)
    party.await_steps(10)

    def seen() -> bool:
        member = party.member(outlier.name)
        return member is not None and says in str(member.stats.get("quarantine"))

    wait_for("edldist status to say so", seen)
    assert party.labelled_by(outlier) == 0 and wrong_labels(party) == before
    assert "gives this worker no work: " in outlier.log.read_text()
    said = party.student.log.read_text()
    assert f"worker {outlier.name} on {event['host']} of teacher 'teacher' is put aside: " in said
    assert ("a constant teaches nothing" in said) == (mind in ("constant",)) or mind == "wavering"
    outlier.send(signal.SIGTERM)
    assert outlier.wait(30) == 143


def test_a_worker_that_drifts_in_mid_run_is_found_and_what_was_learnt_from_it_is_counted(party: Crew):
    party.job.ask("drift")
    drifting = party.job.culprit("drift")
    event = put_aside(party, drifting.name)
    assert "answered itself at first" in event["reason"] or "it differs from worker t-" in event["reason"]
    party.await_steps(1)
    wrong = wrong_labels(party)
    assert wrong <= event["consumed"], "none was taken that is not said to be in doubt"
    party.await_steps(20)
    assert wrong_labels(party) == wrong
    stats = party.stats()
    assert stats["aside"] == 1 and stats["doubtful"] == event["consumed"]
    assert stats["retracted"] == event["retracted"]
    party.assert_exact_so_far()
