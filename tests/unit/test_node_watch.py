"""A node's supervisor tells lost nodes and frozen ranks from a script that cannot work."""

from __future__ import annotations

from edldist_launch.node.watch import NodeWatch, Progress, RankProcess


def notes(*ranks: int) -> str:
    """What the starts of some ranks leave: number 7 is process p7 with the id 107."""
    return "".join(f"start p{rank} {100 + rank} {1000 + rank}\n" for rank in ranks)


def process(rank: int) -> RankProcess:
    return RankProcess(f"p{rank}", 100 + rank, 1000 + rank)


def test_restarts_without_progress_are_hopeless_after_a_while() -> None:
    watch = NodeWatch(nproc_per_node=2, max_fruitless=2)
    for groups in (1, 2, 3):
        watch.see_notes(notes(*range(10, 10 + 2 * groups)))
        assert not watch.hopeless
    watch.see_notes(notes(*range(10, 18)))
    assert watch.hopeless and watch.restarts == 3


def test_restarts_between_two_looks_count_too() -> None:
    watch = NodeWatch(nproc_per_node=1, max_fruitless=2)
    watch.see_notes("")
    watch.see_notes(notes(1, 2, 3, 4))
    assert watch.hopeless and watch.restarts == 3


def test_coming_further_refills_the_budget() -> None:
    watch = NodeWatch(nproc_per_node=1, max_fruitless=2)
    for generation in range(1, 20):
        watch.see_notes(notes(*range(1, generation + 1)))
        if generation % 2:
            watch.see_progress([(f"p{generation}", Progress(1, generation // 10, 20 * (generation % 10)))])
    assert not watch.hopeless
    assert watch.restarts == 18


def test_a_script_that_always_dies_at_the_same_place_is_hopeless() -> None:
    watch = NodeWatch(nproc_per_node=1, max_fruitless=2)
    for generation in range(1, 5):
        assert not watch.hopeless
        watch.see_notes(notes(*range(1, generation + 1)))
        watch.see_progress([(f"p{generation}", Progress(10, 1, 500))])
    assert watch.hopeless


def test_a_restored_position_is_no_progress_before_the_first_batch() -> None:
    watch = NodeWatch(nproc_per_node=1, max_fruitless=1)
    for generation in range(1, 4):
        watch.see_notes(notes(*range(1, generation + 1)))
        watch.see_progress([(f"p{generation}", Progress(0, 1, 500 + generation))])
    assert watch.hopeless


def test_progress_of_other_processes_counts_for_nothing() -> None:
    watch = NodeWatch(nproc_per_node=1, max_fruitless=1)
    for generation in range(1, 4):
        watch.see_notes(notes(*range(1, generation + 1)))
        watch.see_progress([("of-a-namesake", Progress(9, generation, 0))])
    assert watch.hopeless


def test_of_several_loaders_of_a_rank_the_one_that_came_furthest_counts() -> None:
    watch = NodeWatch(1, 2)
    watch.see_notes(notes(1))
    evaluation, training = Progress(3, 0, 30), Progress(5, 2, 40)
    for order in ([evaluation, training], [training, evaluation]):
        watch.see_progress([("p1", progress) for progress in order])
        assert watch.furthest == (2, 40)


def test_a_rank_may_say_that_restarting_is_of_no_use() -> None:
    watch = NodeWatch(nproc_per_node=2, max_fruitless=10)
    watch.see_notes(notes(7, 8) + "end p4242 ConfigError: of a process that is none of ours\n")
    assert watch.verdict is None
    watch.see_notes(notes(7, 8) + "end p8 ConfigError: half a li")
    assert watch.verdict is None
    watch.see_notes(notes(7, 8) + "end p8 ConfigError: no such thing\nend p7 ConfigError: another\n")
    assert watch.verdict == "ConfigError: no such thing"
    assert watch.restarts == 0


def test_it_is_known_which_of_the_present_ranks_save_first_and_which_were_stopped() -> None:
    watch = NodeWatch(2, 3)
    watch.see_notes(notes(7, 8) + "heeds p4242\nstopped p4242\nheeds\n")  # of a process that is none of ours
    assert (watch.heeding, watch.stopped) == (0, False)
    said = notes(7, 8) + "heeds p7\nheeds p7\n"
    watch.see_notes(said)
    assert (watch.heeding, watch.stopped) == (1, False)
    said += "heeds p8\nstopped p7\n"
    watch.see_notes(said)
    assert (watch.heeding, watch.stopped) == (2, True)
    watch.see_notes(said + notes(9, 10))  # their agent had asked them, because a node joined
    assert (watch.heeding, watch.stopped) == (0, False)


def test_only_ranks_of_the_running_group_are_killed_when_written_off() -> None:
    watch = NodeWatch(nproc_per_node=2, max_fruitless=1)
    watch.see_notes(notes(7, 8))
    assert watch.written_off(["p8", "p9"], [], sure=True) == [process(8)]
    watch.see_notes(notes(7, 8, 17))
    assert watch.written_off(["p8", "p17"], [], sure=True) == [process(17)]


def test_a_rank_that_was_cut_off_with_its_host_has_time_to_register_anew() -> None:
    watch = NodeWatch(nproc_per_node=2, max_fruitless=3)
    watch.see_notes(notes(7, 8))
    assert watch.written_off(["p7", "p8"], [], sure=False) == []
    assert watch.written_off([], ["p7"], sure=False) == []
    assert watch.written_off([], ["p7"], sure=True) == [process(8)]
    assert watch.written_off([], ["p7"], sure=True) == []
