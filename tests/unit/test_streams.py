"""Standard streams that never fail or block whoever writes to them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from edldist.observe.streams import SteadyOutput


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # the test closed it


def test_what_is_written_arrives_whole(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    data = os.urandom(300_000)
    received = bytearray()

    def read() -> None:
        while len(received) < len(data):
            received.extend(os.read(read_end, 1 << 16))

    reader = threading.Thread(target=read)
    reader.start()
    output = SteadyOutput(write_end, patience_s=30)
    assert output.write(data) == len(data)
    reader.join(30)
    assert bytes(received) == data and output.lost_bytes == 0


def test_a_full_disk_loses_what_it_does_not_take() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    output = SteadyOutput(descriptor)
    assert output.write(b"lost") == 4
    assert output.write(b"too") == 3
    assert output.lost_bytes == 7
    os.close(descriptor)


def test_a_reader_that_stopped_reading_is_waited_for_once(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    output = SteadyOutput(write_end, patience_s=0.05)
    output.write(bytes(1 << 20))
    lost = output.lost_bytes
    assert 0 < lost < 1 << 20
    output._patience_s = 1e6  # would hang, if it waited again
    output.write(b"more")
    assert output.lost_bytes == lost + 4
    while select.select([read_end], [], [], 0)[0]:
        os.read(read_end, 1 << 16)
    output.write(b"again")
    assert output.lost_bytes == lost + 4
    assert os.read(read_end, 100) == b"again"


def test_a_closed_pipe_and_a_closed_file_are_the_end_of_it(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    os.close(read_end)
    output = SteadyOutput(write_end)
    assert [output.write(b"x"), output.write(b"y"), output.lost_bytes] == [1, 1, 2]
    os.close(write_end)
    assert SteadyOutput(write_end).write(b"z") == 1


def test_a_terminal_that_went_away_is_the_end_of_it() -> None:
    master, terminal = pty.openpty()
    os.close(master)
    output = SteadyOutput(terminal)
    assert output.write(b"hello") == 5
    assert output.lost_bytes == 5
    os.close(terminal)


SCRIPT = """
import logging, sys
from edldist.observe.streams import install_steady_streams
install_steady_streams()
print("ein Prüfstück \\u2713 \\udcff", flush=True)
print("\\udcff", file=sys.stderr)
"""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_an_encoding_that_lacks_a_character_prints_another(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).startswith("ein Pr")
    assert done.stdout.endswith(b"?\n") and done.stderr == b"\\udcff\n"


def test_a_process_whose_output_is_full_or_closed_ends_as_it_would_have() -> None:
    for redirection in (">/dev/full 2>&1", ">&- 2>&-"):
        command = f'exec "{sys.executable}" -c "$0" {redirection}'
        assert subprocess.run(["sh", "-c", command, SCRIPT]).returncode == 0
