"""What became of a child, as the record and the person at the terminal are told it."""

from __future__ import annotations

from edldist_launch.local.child import describe_exit
from edldist_launch.local.fleet import Change
from edldist_launch.view.observers import Observers

__all__ = ["note_change"]


def note_change(observers: Observers, role: str, change: Change) -> None:
    """Record and say it.

    Args:
        role: coordinator, teacher or student: the beginning of the event's name.
    """
    child = change.child
    name = child.id if child.id.startswith(role) else f"{role} {child.id}"
    if change.event in ("started", "restarted"):
        observers.event(f"{role}_{change.event}", id=child.id, pid=child.pid)
        observers.say(f"{name} {change.event}")
        return
    observers.event(f"{role}_{change.event}", id=child.id, code=change.code, retry_s=change.retry_s)
    if change.event in ("stopped", "removed"):
        done = change.event == "stopped" and not change.code
        observers.say(f"{name} {'finished' if done else 'has left, as it was asked to'}")
        return
    again = f", again in {change.retry_s:g} s" if change.event == "crashed" else ""
    what = "cannot work" if change.event == "hopeless" else change.event
    observers.say(f"{name} {what}: {describe_exit(change.code)}{again} ({child.log_path})", "yellow")
