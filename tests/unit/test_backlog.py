"""Who is hung up on for what it holds or says, and whose bytes count: to the byte, without connections.

With real ones: tests/contract/test_backlog.py.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import zmq

from edldist.wire.zmq import backlog
from edldist.wire.zmq.backlog import SILENT_BYTES, TASKLESS_BYTES, WORDS, Backlog, _Connection

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts as Linux does")

MOST = 64 << 20
HEADER = 1 << 20


class Bound:
    """A socket of which one says whether it has something to read."""

    closed = True

    def __init__(self) -> None:
        self.waits = False

    def get(self, option: int) -> int:
        assert option == zmq.EVENTS
        return zmq.POLLIN if self.waits else zmq.POLLOUT

    def getsockopt_string(self, option: int) -> str:
        assert option == zmq.LAST_ENDPOINT
        return "tcp://127.0.0.1:7070"


class Book(Backlog):
    """A backlog whose connections hold what one says, and are only noted when they are hung up on.

    Attributes:
        holds: bytes that are unread, by descriptor.
        gone: who was hung up on, with the reason.
        looks: how often somebody asked what is held.
        asked: how often somebody asked who has come.
    """

    def __init__(self, context: zmq.Context, most_bytes: int = MOST, sealed: bool = False) -> None:
        with context.socket(zmq.ROUTER) as bound:
            super().__init__(bound, most_bytes, HEADER, sealed)
            self.close()
        self.bound = self._socket = Bound()
        self.connections = object()
        self.holds: dict[int, int] = {}
        self.gone: dict[int, str] = {}
        self.looks = self.asked = 0

    def note_connections(self) -> None:
        self.asked += 1

    def held(self) -> dict[int, int]:
        self.looks += 1
        return {source: self.holds.get(source, 0) for source in self._open}

    def _hang_up(self, connection: _Connection, why: str) -> bool:
        self._forget(connection)
        self.gone[connection.source] = why
        return True

    def comes(self, source: int, holds: int = 0, heard: bool = False, tasked: bool = False) -> _Connection:
        """A connection from 10.0.0.1, on which something well-formed was heard or not."""
        connection = self._open[source] = _Connection(source, "10.0.0.1")
        self._callers.came("10.0.0.1", 0.0)
        self.holds[source] = holds
        if heard or tasked:
            self._last = connection
            self.heard(b"%d" % source)
        if tasked:
            self.tasked(b"%d" % source)
        return connection

    def says(self, source: int, *sizes: int) -> int:
        """A message of parts of such sizes is read; how many bytes that was on its way."""
        before = self._open[source].read
        self.read(Route(source), [memoryview(bytes(size)) for size in sizes])
        return self._open[source].read - before


class Route:
    def __init__(self, source: int | None) -> None:
        self.source = source

    def get(self, option: int) -> int:
        assert option == zmq.SRCFD
        if self.source is None:
            raise zmq.ZMQError(zmq.EINVAL)
        return self.source


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    with zmq.Context() as made:
        yield made


@pytest.fixture
def book(context: zmq.Context) -> Book:
    return Book(context)


def looks_again(book: Book, now: float) -> float:
    """After how long it looks again."""
    return round(book.look(now) - now, 6)


def test_it_looks_twenty_times_a_second_and_more_often_at_who_holds_more_than_a_greeting(book: Book) -> None:
    assert looks_again(book, 10.0) == 0.05
    assert (book.look(10.049), book.looks) == (10.05, 1), "not yet"
    assert book.asked == 2, "but at who has come"
    book.comes(3, SILENT_BYTES, heard=True)
    assert (looks_again(book, 10.05), book.looks) == (0.05, 2)
    book.holds[3] += 1
    assert looks_again(book, 10.2) == 0.01
    book.comes(4)
    assert looks_again(book, 10.3) == 0.01, "whoever else holds nothing"
    book.tasked(b"3")
    assert looks_again(book, 10.4) == 0.05


def test_a_look_at_a_thousand_connections_takes_its_time(book: Book) -> None:
    for source in range(1000):
        book.comes(source)
    assert looks_again(book, 10.0) == 0.2


@pytest.mark.parametrize(
    ("heard", "most", "says"), [(False, SILENT_BYTES, "256 KiB"), (True, HEADER + SILENT_BYTES, "1280 KiB")]
)
def test_who_has_no_task_may_hold_as_much_as_a_greeting_or_a_header_takes(
    book: Book, heard: bool, most: int, says: str
) -> None:
    book.comes(3, most, heard)
    book.comes(4, most + 1, heard)
    book.comes(5, most + 1, tasked=True)
    book.look(10.0)
    assert book.gone == {
        4: f"{most >> 10} KiB of it waited unread, or unfinished; one that has no task may hold {says}"
    }
    assert book.cut == 1


def test_those_without_a_task_may_hold_so_much_together_and_the_largest_go_first(book: Book) -> None:
    each = 1 << 20
    for source in range(9):
        book.comes(source, each, heard=True)
    book.comes(20, 4 * each, tasked=True)  # does not count
    book.comes(21, -5)  # what was read meanwhile
    book.holds[7] -= 1
    book.holds[8] += 1
    book.look(10.0)
    assert list(book.gone) == [8] and "no task may hold 8 MiB together" in book.gone[8]
    assert sum(book.holds[source] for source in range(8)) == TASKLESS_BYTES - 1
    book.holds[7] += 1
    book.look(10.1)
    assert len(book.gone) == 1, "that much is allowed"


def test_a_lower_bound_of_all_is_that_of_those_without_a_task_too(context: zmq.Context) -> None:
    book = Book(context, most_bytes=1 << 20)
    book.comes(3, (1 << 19) + 1, heard=True)
    book.comes(4, 1 << 19, heard=True)
    book.look(10.0)
    assert list(book.gone) == [3] and "all connections together may hold 1 MiB" in book.gone[3]


def test_all_together_may_hold_so_much_tasks_or_not_and_the_largest_go_first(book: Book) -> None:
    for source, holds in ((3, 20 << 20), (4, 30 << 20), (5, 20 << 20), (6, 10 << 20)):
        book.comes(source, holds, tasked=True)
    book.look(10.0)
    assert list(book.gone) == [4] and "all connections together may hold 64 MiB" in book.gone[4]
    assert "30720 KiB of it" in book.gone[4]
    book.holds[3] += 14 << 20
    book.look(10.1)
    assert len(book.gone) == 1, "64 MiB are allowed"


def test_who_goes_for_the_bound_of_all_counts_no_more_among_those_without_a_task(book: Book) -> None:
    book.comes(3, 60 << 20, heard=True)
    book.comes(4, 5 << 20, tasked=True)
    for source in range(10, 18):
        book.comes(source, 1 << 20, heard=True)
    book.look(10.0)
    assert list(book.gone) == [3]


def test_who_goes_for_the_bound_of_all_with_a_task_makes_no_room_for_those_without(book: Book) -> None:
    book.comes(3, 60 << 20, tasked=True)
    book.comes(4, 1, heard=True)
    for source in range(10, 18):
        book.comes(source, 1 << 20, heard=True)
    book.look(10.0)
    assert list(book.gone) == [3, 10]


def test_a_process_that_always_has_something_to_read_looks_at_every_twentieth(book: Book) -> None:
    book.comes(3, SILENT_BYTES + 1)
    book.bound.waits = True
    for number in range(1, 20):
        book.look(float(number))
        assert not book.gone, number
    book.look(20.0)
    assert list(book.gone) == [3]
    book.comes(4, SILENT_BYTES + 1)
    book.look(21.0)
    assert 4 not in book.gone, "again it gets time to read"
    book.bound.waits = False
    book.look(22.0)
    assert 4 in book.gone
    book.comes(5, MOST + 1, tasked=True)
    book.bound.waits = True
    book.look(23.0)
    assert 5 in book.gone, "the bound of all counts whatever waits"


def test_who_has_no_task_may_say_so_much_at_once_and_two_thousand_a_second_more(book: Book) -> None:
    book.look(10.0)
    most, more, tasked = book.comes(3), book.comes(4), book.comes(5, tasked=True)
    most.words, more.words, tasked.words = WORDS + 200.0, WORDS + 201.0, WORDS + 1000.0
    book.look(10.1)
    assert list(book.gone) == [4] and "2000 messages a second, and has no task" in book.gone[4]
    assert (most.words, tasked.words) == (pytest.approx(WORDS), pytest.approx(WORDS + 800))
    book.look(30.1)
    assert (most.words, tasked.words) == (0.0, 0.0)


def test_bytes_are_counted_as_they_travel(context: zmq.Context) -> None:
    book = Book(context)
    book.comes(3)
    assert [book.says(3, size) for size in (0, 255, 256)] == [2, 257, 265]
    assert book.says(3, 10, 300) == 12 + 309
    assert book.says(3) == 0
    sealed = Book(context, sealed=True)
    sealed.comes(3)
    assert [sealed.says(3, size) for size in (0, 222, 223)] == [35, 257, 265]


def test_a_message_counts_as_a_word_and_garbage_as_four(book: Book) -> None:
    connection = book.comes(3)
    book.says(3, 1, 1)
    assert connection.words == 1
    book.skipped()
    assert connection.words == 4
    book.read(Route(None), [memoryview(b"x")])  # of nobody knows whom
    book.skipped()
    book.heard(b"3")
    book.overlong()
    book.read(Route(9), [memoryview(b"x")])  # who has left
    book.skipped()
    assert (connection.words, connection.read, connection.route, book.gone) == (4, 6, None, {})


def test_whoever_is_unknown_may_have_come_since_the_last_look(book: Book) -> None:
    book.comes(3)
    book.says(3, 1)
    assert book.asked == 0, "that takes time for each message"
    book.read(Route(9), [memoryview(b"x")])
    assert book.asked == 1


def test_connections_are_noted_as_they_come_and_go(context: zmq.Context) -> None:
    with context.socket(zmq.ROUTER) as bound:
        made = backlog.Backlog(bound, MOST, HEADER)
        assert made.connections is not None and made.connections.getsockopt(zmq.RCVHWM) == 0
        port = bound.bind_to_random_port("tcp://127.0.0.1")
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port)):
                wait_until(made, lambda: made.open == 1)
                (connection,) = made._open.values()
                assert made.held() == {connection.source: 0}
                connection.read = 5
                assert made.held() == {connection.source: -5}
            wait_until(made, lambda: made.open == 0)
        assert (made.cut, made.refused) == (0, 0)
        made.close()
        assert made.connections is None
        made.close()
    with context.socket(zmq.ROUTER) as closed:
        late = backlog.Backlog(closed, MOST, HEADER)
    late.close()
    assert late.connections is None, "though its socket was closed before"


def test_who_left_takes_no_place_of_its_address(
    context: zmq.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "most_connections", lambda: 2)  # one of each address
    with context.socket(zmq.ROUTER) as bound:
        made = backlog.Backlog(bound, MOST, HEADER)
        port = bound.bind_to_random_port("tcp://127.0.0.1")
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)):
                wait_until(made, lambda: made.open == 1)
            wait_until(made, lambda: made.open == 0)
        assert made.refused == 0
        made.close()


@pytest.fixture
def elsewhere() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection that is none of a hub's."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=30) as near,
        server.accept()[0] as far,
    ):
        yield near, far


def test_bytes_that_wait_in_the_kernel_were_not_taken(elsewhere: tuple[socket.socket, socket.socket]) -> None:
    near, far = elsewhere
    near.sendall(bytes(10))
    for part, taken in ((0, 0), (4, 4), (6, 10)):
        assert len(far.recv(part, socket.MSG_WAITALL)) == part
        wait_for_bytes(far, 10 - taken)
        assert backlog._taken(far.fileno()) == taken


def wait_for_bytes(connection: socket.socket, count: int) -> None:
    connection.settimeout(30)
    assert not count or len(connection.recv(count, socket.MSG_PEEK | socket.MSG_WAITALL)) == count
    connection.settimeout(None)


def test_nobody_is_hung_up_on_whose_descriptor_is_something_else_by_now(
    context: zmq.Context, elsewhere: tuple[socket.socket, socket.socket]
) -> None:
    near, far = elsewhere
    with context.socket(zmq.ROUTER) as bound:
        made = backlog.Backlog(bound, MOST, HEADER)
        bound.bind_to_random_port("tcp://127.0.0.1")
        made._note(far.fileno())
        made._cut(*made._open.values(), "it is a test")
        assert (made.open, made.cut) == (0, 0)
        near.sendall(b"x")
        assert far.recv(1) == b"x"
        made.close()


def test_a_socket_that_is_watched_no_more_goes_on(context: zmq.Context) -> None:
    """Or libzmq's own thread would wait for somebody to hear of its connections."""
    with context.socket(zmq.ROUTER) as bound:
        made = backlog.Backlog(bound, MOST, HEADER)
        port = bound.bind_to_random_port("tcp://127.0.0.1")
        made.close()
        for _ in range(20):  # a queue that nobody reads may be there for a moment yet
            with context.socket(zmq.DEALER) as link:
                link.setsockopt(zmq.LINGER, 0)
                link.connect(f"tcp://127.0.0.1:{port}")
                link.send(b"word")
                assert bound.poll(30_000)
                assert bound.recv_multipart()[1:] == [b"word"]


def test_one_that_has_left_before_it_was_noted_is_none(book: Book) -> None:
    with socket.socket() as unconnected:
        book._note(unconnected.fileno())
    assert book.open == 0


def test_who_is_hung_up_on_sees_it_and_one_that_comes_too_many_as_well(
    context: zmq.Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backlog, "most_connections", lambda: 2)  # one of each address
    with context.socket(zmq.ROUTER) as bound, caplog.at_level(logging.WARNING):
        made = backlog.Backlog(bound, MOST, HEADER)
        port = bound.bind_to_random_port("tcp://127.0.0.1")
        with socket.create_connection(("127.0.0.1", port), timeout=30) as first:
            wait_until(made, lambda: made.open == 1)
            with socket.create_connection(("127.0.0.1", port), timeout=30) as second:
                wait_until(made, lambda: made.refused == 1)
                assert ended(second) and (made.open, made.cut) == (1, 0)
            made._cut(*made._open.values(), "it is a test")
            assert ended(first) and (made.open, made.cut, made.refused) == (0, 1, 1)
        made.close()
    assert "from 127.0.0.1" in caplog.messages[0] and "one address may hold 1" in caplog.messages[0]


def ended(connection: socket.socket) -> bool:
    """Read until the other side hangs up."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass
    return True


def test_whose_descriptor_is_closed_has_left_and_holds_nothing(context: zmq.Context) -> None:
    with context.socket(zmq.ROUTER) as bound:
        made = backlog.Backlog(bound, MOST, HEADER)
        made._callers.came("10.0.0.1", 0.0)
        made._open[10**6] = _Connection(10**6, "10.0.0.1")
        assert made.held() == {} and made.open == 0
        made.close()


def wait_until(made: backlog.Backlog, done: Callable[[], bool]) -> None:
    assert made.connections is not None
    while not done():
        assert made.connections.poll(30_000), "nothing was told of connections"
        made.note_connections()


def test_where_nothing_is_counted_nothing_is_noted(book: Book) -> None:
    connection = book.comes(3)
    book.connections = None
    book.says(3, 5)
    assert (connection.read, connection.words) == (0, 0)


def test_a_message_of_too_many_frames_is_the_last_one(book: Book) -> None:
    book.comes(3)
    book.says(3, 1)
    book.overlong()
    assert book.gone == {3: "it sent a message of too many frames"} and book.cut == 1
    book.skipped()
    book.overlong()
    assert book.cut == 1


def test_a_task_is_noted_with_who_said_its_route_last(book: Book) -> None:
    former, now = book.comes(3), book.comes(4)
    for source in (3, 4):
        book.says(source, 1)
        book.heard(b"same")
    book._forget(former)
    book.tasked(b"same")
    book.tasked(b"unknown")
    assert now.tasked and not former.tasked
    book._forget(now)
    book.tasked(b"same")
    assert not book._routes and book.open == 0


def test_whoever_was_hung_up_on_too_often_waits_with_its_next_greeting(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4,096 greetings, and a fine of 1,024."""
    monkeypatch.setattr(backlog, "time", SimpleNamespace(monotonic=lambda: 0.0))
    for source in range(4):
        assert not book._callers.came("10.0.0.1", 0.0)
        book._callers.left("10.0.0.1")
        book._cut(book.comes(source), "it is a test")
    assert "greets more than" in book._callers.came("10.0.0.1", 0.0)
    assert book.cut == 4 and book.open == 0


def test_one_line_in_half_a_minute_says_who_was_hung_up_on(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for now in (100.0, 100.0, 129.9, 130.0, 160.0):
            book._say("10.0.0.1", "why", now)
    first, second, third = caplog.messages
    assert first == third == "cut off a connection from 10.0.0.1 at tcp://127.0.0.1:7070: why"
    assert second == first + " (2 more since the last such line)"


def test_nothing_that_a_connection_brought_in_is_of_another_system(
    context: zmq.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with context.socket(zmq.ROUTER) as bound:
        made = Backlog(bound, MOST, HEADER)
        assert made.connections is None
        made.note_connections()
        made.close()
        assert made.open == 0
