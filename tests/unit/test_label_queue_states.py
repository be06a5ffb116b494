"""Whatever happens in any order, the label queue agrees with itself, and labels each sample once."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Grant
from edldist.student.queue.queue import LabelQueue
from edldist.student.queue.wanted import Wanted

PICK = st.integers(0, 10**6)


class Workers(RuleBasedStateMachine):
    """A queue, and workers who do as they like with the leases that they were given."""

    @initialize(
        teachers=st.sampled_from([("a",), ("a", "b")]),
        task_size=st.sampled_from([None, None, 1, 7]),
        fixed=st.sampled_from([False, False, True]),
        max_attempts=st.sampled_from([1, 3, 10**6]),
        first_lease=st.integers(1, 5),
    )
    def begin(self, teachers, task_size, fixed, max_attempts, first_lease):
        self.flow = Flow(
            task_size=task_size,
            fixed=fixed,
            max_attempts=max_attempts,
            low_watermark=1,
            high_watermark=3,
            max_bytes=300,
            first_deadline_s=20.0,
            min_deadline_s=5.0,
            hang_s=30.0,
        )
        self.queue = LabelQueue(teachers, self.flow, first_lease)
        self.teachers = teachers
        self.names = [f"{teacher}{number}" for teacher in teachers for number in range(4)]
        self.here: set[str] = set()
        self.given: list[tuple[str, Grant]] = []  # leases that workers hold, as they think
        self.wanted: dict[int, dict[str, Wanted]] = {}
        self.keys: dict[tuple[int, str], list[bytes]] = {}
        self.labels: dict[tuple[int, str], list[int]] = {}  # how often each sample was labelled
        self.made: list[tuple[str, int, str, int, int]] = []  # who labelled what of open batches
        self.grown: Counter[tuple[int, str]] = Counter()  # bytes of labels
        self.hopeless: set[int] = set()
        self.abandoned: set[int] = set()
        self.delivered: list[int] = []
        self.cleared = 0
        self.now = 0.0

    def worker(self, pick: int) -> str:
        """Somebody who is here."""
        name = self.names[pick % len(self.names)]
        if name not in self.here:
            self.queue.join(name, name[0])
            self.here.add(name)
        return name

    def note(self, returned) -> None:
        self.hopeless |= {poison.batch for poison in returned.poison}
        assert all(poison.attempts for poison in returned.poison)

    # --- the data loader and the loop ---------------------------------------------------------------

    @precondition(lambda self: len(self.wanted) < 12)
    @rule(samples=st.integers(0, 20), data=st.data(), nbytes=st.integers(0, 80))
    def read(self, samples, data, nbytes):
        wanted = {}
        for teacher in data.draw(st.sampled_from([self.teachers, self.teachers, self.teachers[:1]])):
            lengths = data.draw(st.none() | st.lists(st.integers(1, 5), min_size=samples, max_size=samples))
            whole = Wanted.whole(samples, lengths)
            edges = sorted(data.draw(st.sets(st.integers(0, samples), max_size=4)))
            runs = tuple(zip(edges[::2], edges[1::2], strict=False))
            wanted[teacher] = data.draw(st.sampled_from([whole, Wanted(samples, runs, whole.ends)]))
        keys = {}
        for teacher in wanted:
            if data.draw(st.booleans()):
                few = st.lists(st.sampled_from([b"p", b"q", b"r"]), min_size=samples, max_size=samples)
                keys[teacher] = data.draw(few)
        before = self.queue.open_batches, self.queue.nbytes
        number = self.queue.offer(samples, nbytes, wanted, keys)
        assert (self.queue.open_batches, self.queue.nbytes) == (before[0] + 1, before[1] + nbytes)
        self.wanted[number] = wanted
        for teacher in wanted:
            self.labels[number, teacher] = [0] * samples
            self.keys[number, teacher] = keys.get(teacher, [])

    @precondition(lambda self: self.queue.ready())
    @rule()
    def deliver(self):
        number = self.queue.head
        assert self.queue.deliver() == number
        if number not in self.abandoned:
            for teacher, wanted in self.wanted[number].items():
                once = [any(start <= k < stop for start, stop in wanted.runs) for k in range(wanted.samples)]
                assert self.labels[number, teacher] == once
        del self.wanted[number]
        self.delivered.append(number)
        self.made = [each for each in self.made if each[1] != number]

    @rule()
    def leave_the_loop(self):
        self.queue.clear()
        self.wanted.clear()
        self.made.clear()
        assert (self.queue.open_batches, self.queue.nbytes) == (0, 0)

    @precondition(lambda self: self.wanted)
    @rule(pick=PICK, stall=st.booleans())
    def give_a_batch_up(self, pick, stall):
        number = sorted(self.wanted)[pick % len(self.wanted)]
        if stall:
            self.queue.stall(number)
            self.hopeless.add(number)
        else:
            self.queue.abandon(number)
            self.abandoned.add(number)

    # --- workers --------------------------------------------------------------------------------------

    @rule(pick=PICK, room=st.integers(1, 30))
    def pull(self, pick, room):
        name = self.worker(pick)
        self.queue.parole(name)
        had_work = self.queue.has_work(name, self.now)
        grants = self.queue.lease(name, room, self.now)
        assert bool(grants) <= had_work, "who gets something had work"
        assert self.queue.asleep(name) == (not grants)
        if not self.flow.cuts_fixed and len(grants) > 1:
            assert sum(grant.cost for grant in grants) <= room
        assert all(grant.pieces == ((grant.start, grant.stop),) for grant in grants)
        self.given += [(name, grant) for grant in grants]

    @rule(pick=PICK, room=st.integers(1, 30))
    def hedge(self, pick, room):
        name = self.worker(pick)
        grant = self.queue.hedge(name, room, self.now, older_than_s=1.0)
        if grant is not None:
            assert grant.batch == self.queue.head
            self.given.append((name, grant))

    @precondition(lambda self: self.given)
    @rule(pick=PICK, twice=st.booleans())
    def answer(self, pick, twice):
        name, grant = self.given.pop(pick % len(self.given))
        self.put(name, grant)
        if twice:
            duplicates = self.queue.duplicates
            assert self.queue.find(grant.lease, name, self.now) is None
            assert self.queue.duplicates == duplicates + 1

    def put(self, name: str, grant: Grant) -> None:
        found = self.queue.find(grant.lease, name, self.now)
        if found is None:
            return
        assert (found.batch, found.start, found.stop) == (grant.batch, grant.start, grant.stop)
        marks = self.labels[found.batch, found.teacher]
        for start, stop in found.pieces:
            assert found.start <= start < stop <= found.stop
            for sample in range(start, stop):
                marks[sample] += 1
            self.made.append((name, found.batch, found.teacher, start, stop))
        self.label_followers(name, found.teacher, self.queue.following.of(found))
        self.queue.grow(found.batch, 7 * (found.stop - found.start))
        self.grown[found.batch, found.teacher] += 7 * (found.stop - found.start)
        done = self.queue.complete(found.lease, self.now)
        if found.batch == self.queue.head:
            assert done or self.queue.deliverable_batches == 0

    def label_followers(self, name: str | None, teacher: str, followers) -> None:
        for place, leader in followers:
            assert (
                self.keys[place.batch, teacher][place.sample]
                == self.keys[leader.batch, teacher][leader.sample]
            )
            self.labels[place.batch, teacher][place.sample] += 1
            if name is not None:
                self.made.append((name, place.batch, teacher, place.sample, place.sample + 1))

    def uncut(self, pick: int) -> tuple[int, str, list[tuple[int, int]]]:
        """What nobody was given yet of some batch and teacher."""
        number = sorted(self.wanted)[pick % len(self.wanted)]
        teacher = self.teachers[pick % len(self.teachers)]
        return number, teacher, self.queue.following.uncut(teacher, number)

    @precondition(lambda self: self.wanted)
    @rule(pick=PICK, chosen=st.sets(st.integers(0, 20)))
    def find(self, pick, chosen):
        """Labels of some samples are found elsewhere."""
        number, teacher, pieces = self.uncut(pick)
        samples = [sample for start, stop in pieces for sample in range(start, stop)]
        had = [sample for sample in samples if sample in chosen]
        if not had:
            return
        wanted = self.wanted[number][teacher]
        found = wanted.only(had)
        for sample in had:
            self.labels[number, teacher][sample] += 1
        self.label_followers(None, teacher, self.queue.following.of_found(teacher, number, found))
        self.queue.following.found(teacher, number, found, wanted.only(set(samples) - set(had)))

    @precondition(lambda self: self.wanted)
    @rule(pick=PICK)
    def ask_again(self, pick):
        """Labels of a teacher for a batch are of no use any more."""
        number = sorted(self.wanted)[pick % len(self.wanted)]
        for teacher, wanted in self.wanted[number].items():
            had = sum(self.labels[number, teacher])
            again = self.queue.ask_again(number, teacher, wanted, self.grown[number, teacher])
            if again is None:
                assert number in self.hopeless | self.abandoned
                continue
            assert again == had
            self.grown.pop((number, teacher), 0)
            self.labels[number, teacher] = [0] * wanted.samples
            self.made = [each for each in self.made if each[1:3] != (number, teacher)]

    @precondition(lambda self: self.wanted)
    @rule(pick=PICK)
    def excuse(self, pick):
        """A follower cannot use the labels of the sample that it follows."""
        teacher = self.teachers[pick % len(self.teachers)]
        following = self.queue.following.samples
        places = [place for number in sorted(self.wanted) for place in following.places(teacher, number)]
        if places:
            self.queue.following.excuse(teacher, places[pick % len(places)])

    @precondition(lambda self: self.given)
    @rule(pick=PICK)
    def fail(self, pick):
        name, grant = self.given.pop(pick % len(self.given))
        if self.queue.find(grant.lease, name, self.now) is not None:
            self.note(self.queue.fail(grant.lease, "boom", self.now))

    @rule(pick=PICK, many=st.booleans())
    def give_back(self, pick, many):
        name = self.worker(pick)
        leases = [grant.lease for holder, grant in self.given if holder == name]
        self.note(self.queue.give_back(leases if many else leases[:1] * 2, name, self.now))

    @precondition(lambda self: self.here)
    @rule(pick=PICK, gone=st.sampled_from(["lost", "lost, and lives", "left"]))
    def go(self, pick, gone):
        name = sorted(self.here)[pick % len(self.here)]
        self.here.discard(name)
        if gone == "left":
            self.note(self.queue.leave(name, self.now))
        else:
            self.note(self.queue.lose(name, "killed", self.now))
            if gone != "lost":
                self.queue.forgive(name, self.now)
        self.given = [(holder, grant) for holder, grant in self.given if holder != name]

    @rule(pick=PICK)
    def take_back(self, pick):
        name = self.worker(pick)
        mine = [each for each in self.made if each[0] == name]
        self.made = [each for each in self.made if each[0] != name]
        mine = [each for each in mine if each[1] not in self.hopeless | self.abandoned]
        freed = []

        def free(batch, teacher):
            freed.append((batch, teacher))
            return self.grown.pop((batch, teacher), 0)

        taken = self.queue.take_back(name, self.now, free)
        self.note(taken.returned)
        assert not self.queue.leases_of(name)
        assert taken.samples == sum(stop - start for *_, start, stop in mine)
        for _, batch, teacher, start, stop in mine:
            for sample in range(start, stop):
                self.labels[batch, teacher][sample] -= 1
        left = {(batch, teacher) for _, batch, teacher, *_ in self.made}
        assert set(freed) == {(batch, teacher) for _, batch, teacher, *_ in mine} - left

    @rule(pick=PICK, parole=st.booleans())
    def quarantine(self, pick, parole):
        name = self.worker(pick)
        self.queue.quarantine(name)
        if parole:
            self.queue.parole(name)

    # --- time -----------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.05, 1.0, 6.0, 40.0]))
    def time_passes(self, seconds):
        self.now += seconds
        for overdue in self.queue.expire(self.now):
            assert overdue.worker in self.here and overdue.held_s > overdue.allowed_s
            self.note(overdue.returned)
        assert self.queue.expire(self.now) == []
        self.hopeless |= {poison.batch for poison in self.queue.verdicts(self.now)}
        assert self.queue.verdicts(self.now) == []

    @rule(teacher=PICK, passed_over=st.integers(1, 9))
    def rouse(self, teacher, passed_over):
        name = self.teachers[teacher % len(self.teachers)]
        woken = self.queue.rouse(name, self.now, passed_over)
        assert all(self.queue.has_work(worker, self.now) for worker in woken)
        woken += self.queue.rouse_to_hedge(name, self.now, 1.0)
        assert len(set(woken)) == len(woken) and not any(map(self.queue.asleep, woken))

    # --- what always holds ----------------------------------------------------------------------------

    @invariant()
    def it_agrees_with_itself(self):
        self.queue.validate(self.now)
        assert self.delivered == sorted(self.delivered)
        assert self.queue.open_batches == len(self.wanted)
        assert self.queue.head == min(self.wanted, default=None)
        full = self.queue.nbytes > self.flow.max_bytes
        assert not (full and self.wanted and self.queue.wants_batch())

    @invariant()
    def it_says_what_each_teacher_has_not_labelled(self):
        said = sum((self.queue.lacking(teacher) for teacher in self.teachers), Counter())
        said += self.queue.following.samples.covered()
        for batch, samples in self.queue._batches.lacking().items():
            assert said[batch] == samples or (said[batch] < samples and batch in self.hopeless)
        assert said.keys() <= set(self.queue.numbers)

    def teardown(self):
        """Healthy workers label the rest, but for what is hopeless."""
        if not hasattr(self, "queue"):
            return
        for name in sorted(self.here):
            self.note(self.queue.lose(name, "the end", self.now))
        self.here.clear()
        self.given.clear()
        self.time_passes(1000.0)
        for teacher in self.teachers:
            self.queue.join(f"{teacher}9", teacher)
        progress = True
        while progress:
            progress = False
            for teacher in self.teachers:
                for grant in self.queue.lease(f"{teacher}9", 13, self.now):
                    self.put(f"{teacher}9", grant)
                    progress = True
        while self.queue.ready():
            self.deliver()
        assert not self.wanted or self.queue.head in self.hopeless
        self.queue.validate(self.now)


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=100, stateful_step_count=50)
