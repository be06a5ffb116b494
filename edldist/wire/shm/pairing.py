"""One peer that may share memory with this process, and messages whose tensors lie in it.

States of a pair::

    unknown --Offer--> offered --Answer with the right proof--> paired --Unpaired, new process--> unknown
                          |                                       |
                          +-- Decline: by socket from now on -----+

Once paired, a large frame is replaced by a reference to where it lies: in memory that its owner lends
(``Piece``), or in a slab of the sender's into which it is copied once. All else goes by socket, as does
everything while a pair is unknown, or when there is no slab, memory or descriptor left.

A peer that is paired could read this process's memory anyway, as it has the same user. So a reference
gives nobody access; what is checked is that a wrong one ends in a dropped message, not in a mapping of
some other file or in SIGBUS. What this does not cover: a stranger between two paired peers, who
relays their proofs. Keep strangers off the port.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edldist.errors import SharedMemoryError, WireError
from edldist.wire.shm.mappings import Mappings
from edldist.wire.shm.memfile import FileAddress
from edldist.wire.shm.offers import (
    SHARED_FROM_BYTES,
    Answer,
    Decline,
    Offer,
    Reference,
    References,
    Unpaired,
    decode_sharing,
    encode_sharing,
)
from edldist.wire.shm.sharing import Sharing, has_page, prove, read_page
from edldist.wire.shm.slabs import Placed, SlabPool
from edldist.wire.transport import Buffer, Outgoing, Piece, payload

__all__ = ["Pairing", "Wrapped"]

logger = logging.getLogger(__name__)

_OFFER_AGAIN_S = 5.0
_SLAB_AGAIN_S = 5.0


class Wrapped(NamedTuple):
    """A message ready for the socket. ``placed`` must be given back if it cannot be sent.

    ``shared_bytes`` of its tensors stay where they are, and the peer maps them.
    """

    raw: list[Buffer]
    placed: Placed | None = None
    shared_bytes: int = 0


class Pairing:
    """One peer, and the memory that both sides share. Owned by the poller's thread.

    Args:
        send: sends a message about shared memory to the peer, or drops it if that cannot be.
        name: of the peer, for logs.
        max_frame_bytes: no frame may be larger, however it comes.
    """

    def __init__(
        self, sharing: Sharing, send: Callable[[bytes], None], name: str, max_frame_bytes: int
    ) -> None:
        self._sharing = sharing
        self._send = send
        self._name = name
        self._max_frame_bytes = max_frame_bytes
        self._pool = SlabPool(sharing.allowance)
        self._mappings = Mappings(sharing.allowance)
        self._theirs: FileAddress | None = None
        # Invariant: set while _theirs is: what this side says to prove itself, and what it must hear.
        self._our_proof = b""
        self._their_proof = b""
        self._proved = False  # the peer has read this side's page
        self._answered = False  # the peer was told this side's proof
        self._declined = False  # one side cannot map the other's memory
        self._offered_at = -_OFFER_AGAIN_S
        self._no_slab_until = 0.0

    @property
    def paired(self) -> bool:
        return self._proved and not self._declined

    @property
    def met(self) -> bool:
        """Whether the peer's page has been read."""
        return self._theirs is not None

    @property
    def alive(self) -> bool:
        """Whether the process that was met still has its page."""
        return has_page(self._theirs)

    # --- sending --------------------------------------------------------------------------------

    def wrap(self, header: bytes, frames: Outgoing) -> Wrapped:
        """A message as it should leave: large frames by reference, as far as that can be."""
        large = [index for index, frame in enumerate(frames) if _nbytes(frame) >= SHARED_FROM_BYTES]
        if large and not self.paired:
            self._offer()
            large = []
        if not large:
            return Wrapped([header, *map(payload, frames)])
        references = [
            Reference(index, piece.address, 0, piece.offset, piece.memory.nbytes)
            for index in large
            if isinstance(piece := frames[index], Piece)
        ]
        copied = [index for index in large if not isinstance(frames[index], Piece)]
        placed = self._place([payload(frames[index]) for index in copied])
        if placed is not None:
            address, generation, starts = placed
            references += [
                Reference(index, address, generation, start, _nbytes(frames[index]))
                for index, start in zip(copied, starts, strict=True)
            ]
            references.sort(key=lambda reference: reference.frame)
        shared = {reference.frame for reference in references}
        rest = [payload(frame) for index, frame in enumerate(frames) if index not in shared]
        if not references:
            return Wrapped([header, *rest])
        raw = [encode_sharing(References(self._our_proof, references)), header, *rest]
        return Wrapped(raw, placed, sum([reference.length for reference in references]))

    def unsent(self, wrapped: Wrapped) -> None:
        """The message could not be sent: its slab is free."""
        if wrapped.placed is not None:
            self._pool.take_back(wrapped.placed)

    def _place(self, frames: Sequence[Buffer]) -> Placed | None:
        if not frames or time.monotonic() < self._no_slab_until:
            return None
        try:
            return self._pool.put(frames)
        except SharedMemoryError as exc:
            self._no_slab_until = time.monotonic() + _SLAB_AGAIN_S
            self._sharing.say_once(
                logging.WARNING, "no more shared memory; tensors go through the socket instead: %s", exc
            )
            return None

    def _offer(self) -> None:
        now = time.monotonic()
        if self._declined or now - self._offered_at < _OFFER_AGAIN_S:
            return
        self._offered_at = now
        try:
            self._send(encode_sharing(Offer(self._sharing.address)))
        except SharedMemoryError as exc:
            self._give_up(str(exc))

    # --- receiving --------------------------------------------------------------------------------

    def unwrap(self, frames: Sequence[memoryview]) -> list[memoryview] | None:
        """A message that begins with the sharing magic: its header and frames, or None if it was for us.

        Raises:
            WireError: it is malformed, or refers to what cannot be mapped.
        """
        message = decode_sharing(frames[0])
        if isinstance(message, References):
            return self._resolve(message, frames[1:])
        if isinstance(message, Offer):
            if self._meet(message.address):
                self._answer()
        elif isinstance(message, Answer):
            self._on_answer(message)
        elif isinstance(message, Decline):
            self._give_up(message.reason)
        else:
            self._reset()
        return None

    def _on_answer(self, answer: Answer) -> None:
        if not hmac.compare_digest(answer.proof, self._sharing.proof(answer.address)):
            raise WireError(f"process {answer.address.pid} did not read this one's page")
        if not self._meet(answer.address):
            return
        if not self._proved:
            self._proved = True
            logger.info("%s is on this host: tensors go through shared memory", self._name)
        if not self._answered:
            self._answer()

    def _answer(self) -> None:
        self._answered = True
        self._send(encode_sharing(Answer(self._sharing.address, self._our_proof)))

    def _meet(self, address: FileAddress) -> bool:
        """Read the peer's page; whether that could be done."""
        if address == self._theirs:
            return True
        self._reset()
        try:
            secret = read_page(address)
            self._our_proof = prove(secret, self._sharing.address)
            self._their_proof = self._sharing.proof(address)
        except SharedMemoryError as exc:
            self._decline(exc)
            return False
        self._theirs = address
        self._declined = False
        return True

    def _decline(self, reason: SharedMemoryError) -> None:
        self._send(encode_sharing(Decline(str(reason)[:4096])))

    def _resolve(self, message: References, rest: Sequence[memoryview]) -> list[memoryview]:
        if self._theirs is None or not hmac.compare_digest(message.proof, self._their_proof):
            self._send(encode_sharing(Unpaired()))
            raise WireError("references to shared memory from a peer that is not paired")
        if not rest:
            raise WireError("references to shared memory without a message")
        header, *sent = rest
        frames: list[memoryview | None] = [None] * (len(sent) + len(message.references))
        slabs: dict[tuple[int, int], NDArray[np.uint8]] = {}
        self._mappings.next_message()
        for reference in message.references:
            if reference.frame >= len(frames) or frames[reference.frame] is not None:
                raise WireError(f"a reference for frame {reference.frame} of {len(frames)}")
            frames[reference.frame] = self._view(reference, slabs)
        remaining = iter(sent)
        return [header, *(next(remaining) if frame is None else frame for frame in frames)]

    def _view(self, reference: Reference, slabs: dict[tuple[int, int], NDArray[np.uint8]]) -> memoryview:
        address, start, stop = reference.address, reference.start, reference.start + reference.length
        if (
            self._theirs is None
            or address.pid != self._theirs.pid
            or not 0 < reference.length <= self._max_frame_bytes
        ):
            raise WireError(f"a reference to {reference.length} bytes of process {address.pid}")
        try:
            if reference.generation:
                key = address.inode, reference.generation
                if key not in slabs:
                    slabs[key] = self._mappings.slab(address, reference.generation)
                memory = slabs[key]
            else:
                memory = self._mappings.lent(address, start, stop)
        except SharedMemoryError as exc:
            if exc.gone:
                # A task that somebody else has answered, so that its batch was freed. Nobody waits for
                # this one, and the frame's size says that nothing came.
                logger.debug("%s: %s", self._name, exc)
                return memoryview(bytearray())
            self._decline(exc)
            raise
        if stop > memory.nbytes:
            raise WireError(f"a reference to bytes {start} to {stop} of {memory.nbytes}")
        return memory[start:stop].data

    # --- ending -------------------------------------------------------------------------------------

    def _give_up(self, reason: str) -> None:
        if not self._declined:
            self._sharing.say_once(
                logging.INFO,
                "%s does not share memory: tensors go through the socket (%s). "
                "The same of others is not said again",
                self._name,
                reason,
            )
        self._declined = True
        self._retire()

    def _retire(self) -> None:
        if len(self._pool):
            self._sharing.retire(self._pool, self._theirs)
            self._pool = SlabPool(self._sharing.allowance)

    def _reset(self) -> None:
        self._retire()
        self._mappings.close()
        self._theirs = None
        self._proved = False
        self._answered = False
        self._offered_at = -_OFFER_AGAIN_S

    def close(self) -> None:
        """Outgoing that are still referred to stay valid."""
        self._reset()


def _nbytes(frame: Buffer | Piece) -> int:
    return memoryview(payload(frame)).nbytes
