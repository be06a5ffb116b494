"""``edldist top`` on a terminal: a thread that asks the coordinator, and a loop that draws and reads keys.

The terminal is left as it was, however the loop ends. Its Ctrl-Z is off meanwhile: a shell would be left with
half a screen.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import ConsoleDimensions, Group
from rich.live import Live

from edldist.errors import CoordinatorUnreachableError, EdlDistError
from edldist.wire.query import StatusClient
from edldist_launch.view.console import PlainConsole
from edldist_launch.view.top.drawing import draw
from edldist_launch.view.top.keys import Keys
from edldist_launch.view.top.looks import Looks, press
from edldist_launch.view.top.scene import Scene, SceneMaker

__all__ = ["show_once", "show_top"]

ASK_EVERY_S = 1.0
ANSWER_S = 2.0
LOOK_S = 0.25
"""How often the loop looks whether the terminal has another size, and whether an escape was a key."""

Where = Callable[[], str | None]
"""Tells the coordinator's address: one that is placed anew has another. None: the job has ended."""


def show_once(where: Where, console: PlainConsole, pause: Callable[[float], object] = time.sleep) -> int:
    """Print one frame, of two looks a second apart, for rates; as high as it has to be.

    Raises:
        CoordinatorUnreachableError: nobody answered.
    """
    address = where() or ""
    maker = SceneMaker(address)
    with contextlib.closing(StatusClient(address)) as client:
        _all(client, maker)
        maker.recall(client.history(timeout_s=ANSWER_S))
        pause(ASK_EVERY_S)
        scene = _all(client, maker)
    console.print(Group(*draw(scene, Looks(), console.width, None).lines), soft_wrap=True)
    return 0


def _all(client: StatusClient, maker: SceneMaker) -> Scene:
    """Ask until all records were told: an answer holds some of them."""
    while True:
        status = client.query(maker.since, ANSWER_S)
        scene = maker.see(status, time.monotonic(), time.time())
        if not status.records:
            return scene


def show_top(where: Where, console: PlainConsole) -> bool:
    """Show a job until somebody has seen enough, or its end; whether that was the end.

    Raises:
        EdlDistError: the coordinator will have nothing to do with this one.
    """
    with _asking(where) as scenes, _raw_keys() as keyboard:
        looks, keys, scene = Looks(), Keys(), Scene("")
        frozen: Scene | None = None
        with Live(console=console, screen=True, auto_refresh=False) as live:
            shown: tuple[Any, ...] = ()
            while not (looks.done or scenes.ended):
                while (found := scenes.take()) is not None:
                    scene = found
                frozen = None if not looks.paused else frozen or scene
                size = _size(console)
                frame = draw(frozen or scene, looks, *size)
                if shown != (now := (frozen or scene, looks, size)):
                    shown = now
                    console.size = ConsoleDimensions(*size)
                    live.update(Group(*frame.lines), refresh=True)
                for key in _pressed(keys, keyboard, scenes.bell):
                    looks = press(looks, key, frame.furthest, frame.page)
    return scenes.ended


def _size(console: PlainConsole) -> tuple[int, int]:
    """Columns and lines of the terminal as it is now; one that does not tell has 80 and 24."""
    columns, lines = os.get_terminal_size(console.file.fileno())
    return columns or 80, lines or 24


def _pressed(keys: Keys, keyboard: int | None, bell: int) -> Iterator[str]:
    """The keys that are pressed until there is something new to see."""
    ready, _, _ = select.select([bell] if keyboard is None else [keyboard, bell], [], [], LOOK_S)
    if bell in ready:
        os.read(bell, 1024)
    if keyboard in ready:
        data = os.read(keyboard, 1024) if keyboard is not None else b""
        if not data:
            yield "interrupt"  # the terminal has gone
        yield from keys.press(data)
    elif not ready:
        yield from keys.rest()


class _Scenes:
    """Asks the coordinator in a thread of its own, so that keys never wait for an answer."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._told: queue.SimpleQueue[Scene | EdlDistError] = queue.SimpleQueue()
        self._ending = threading.Event()
        self.ended = False  # of the job
        self.bell, self._ring = os.pipe()
        self._thread = threading.Thread(target=self._ask, name="edldist-top", daemon=True)
        self._thread.start()

    def take(self) -> Scene | None:
        """The next scene, if there is one."""
        try:
            told = self._told.get_nowait()
        except queue.Empty:
            return None
        if isinstance(told, EdlDistError):
            raise told
        return told

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        os.close(self._ring)
        os.close(self.bell)

    def _ask(self) -> None:
        try:
            self._follow(self._where())
        except EdlDistError as exc:
            self._told.put(exc)
        self._wake()

    def _follow(self, address: str | None) -> None:
        """Tell what there is at an address, and at those where the coordinator is later, to the job's end."""
        maker = SceneMaker(address or "")
        while address is not None and not self._ending.is_set():
            with contextlib.closing(StatusClient(address)) as client:
                address = self._told_by(client, address, maker)
        self.ended = address is None

    def _told_by(self, client: StatusClient, address: str, maker: SceneMaker) -> str | None:
        """Tell what one coordinator says; where to ask from then on."""
        recalled = False
        while not self._ending.is_set():
            begun = time.monotonic()
            try:
                status = client.query(maker.since, ANSWER_S)
                if not recalled and not status.records:  # all that it holds was told
                    maker.recall(client.history(timeout_s=ANSWER_S))
                    recalled = True
            except CoordinatorUnreachableError as exc:
                self._told.put(maker.lost(" ".join(str(exc).split()), time.monotonic()))
                self._wake()
                with contextlib.suppress(EdlDistError):
                    if (now := self._where()) != address:
                        return now
            else:
                self._told.put(maker.see(status, time.monotonic(), time.time()))
                self._wake()
                if status.records:
                    begun -= 0.8 * ASK_EVERY_S  # there may be more of them
            self._ending.wait(max(0.0, begun + ASK_EVERY_S - time.monotonic()))
        return address

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._ring, b".")


@contextlib.contextmanager
def _asking(where: Where) -> Iterator[_Scenes]:
    with contextlib.closing(_Scenes(where)) as scenes:
        yield scenes


@contextlib.contextmanager
def _raw_keys() -> Iterator[int | None]:
    """The descriptor of a keyboard whose keys come one by one, unseen; None where there is none."""
    try:
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
    except (OSError, ValueError, AttributeError, termios.error):
        yield None
        return
    try:
        tty.setcbreak(keyboard)
        mode = termios.tcgetattr(keyboard)
        mode[6][termios.VSUSP] = b"\x00"
        termios.tcsetattr(keyboard, termios.TCSANOW, mode)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)
