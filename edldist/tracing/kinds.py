"""What a record of a trace may say, and what its fields are then.

A record is of one of these kinds, and has a start and an end (monotonic seconds of its process; alike where
it is a moment), a ``key``, an ``amount``, ``more`` and a ``peer``. Of a task the key is its lease.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Kind"]


class Kind(IntEnum):
    """What happened. In brackets: key, amount, more, peer, as far as they are used."""

    # A student's training loop.
    READ = 1  # its data loader was asked for a batch [batch, samples]
    STARVED = 2  # it waited for labels
    STEP = 3  # it had a batch, until it asked for the next [batch, samples]
    # A student's label queue.
    QUEUED = 4  # a batch was put into it [batch, samples, bytes]
    DELIVERED = 5  # a batch with its labels was taken out of it [batch, samples]
    FULL = 6  # backpressure: all that may be read is labelled
    # A student's I/O thread.
    LEASED = 7  # a task was given to a worker [lease, samples, batch, worker]
    PLACED = 8  # labels of a task came, until they were in their places [lease, rows, -, worker]
    # Either role's I/O thread.
    SENT = 9  # tasks or labels were handed to the socket [-, tasks, bytes, peer]
    TAKEN = 10  # tasks or labels were taken from the socket, and in hand [-, tasks, bytes, peer]
    # A worker's I/O thread.
    RECEIVED = 11  # a task came [lease, samples, -, student]
    RETURNED = 12  # the labels of a task were sent [lease, rows, -, student]
    IDLE = 13  # it had nothing to do, and nobody had anything to give
    # A worker's compute thread.
    BATCHED = 14  # a task was taken into a pass [lease, samples, pass, student]
    PASS = 15  # a pass, from its tasks to its answers [pass, samples, samples of a full one]
    DECODE = 16  # bytes became tensors, or were read from a data set [pass]
    COPY_IN = 17  # inputs were joined and brought to the device [pass]
    FORWARD = 18  # the model [pass]
    ENCODE = 19  # the codec [pass]
    COPY_OUT = 20  # labels came to the host [pass]
