"""The preface of messages: another one for other fields, the same one for the same, whoever computes it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated, Literal

import msgspec
import pytest

from edldist.errors import ProtocolVersionError
from edldist.wire.messages import PROTOCOL, Protocol


class Part(msgspec.Struct, array_like=True):
    id: Annotated[str, msgspec.Meta(max_length=256)]
    kind: Literal["a", "b"]


class Ask(msgspec.Struct, tag="ask", forbid_unknown_fields=True):
    seq: Annotated[int, msgspec.Meta(ge=0)]
    parts: list[Part]
    note: str | None = None


class Say(msgspec.Struct, tag="say"):
    figures: dict[str, int | float]


def preface(*structs: type) -> bytes:
    union = structs[0]
    for struct in structs[1:]:
        union = union | struct
    return Protocol(b"ED", union).preface


def like(
    struct: type[msgspec.Struct], tag: str | None = None, array_like: bool = False, **fields: object
) -> type:
    """A struct of the same fields, but for those that are named: of another type, new, or gone (None)."""
    known = {name: struct.__annotations__[name] for name in struct.__struct_fields__}
    space = dict(globals())
    changed = {name: kind for name, kind in ({**known, **fields}).items() if kind is not None}
    evaluated = [
        (name, eval(kind, space) if isinstance(kind, str) else kind) for name, kind in changed.items()
    ]
    config = struct.__struct_config__
    return msgspec.defstruct(
        "Another", evaluated, tag=tag or config.tag, array_like=array_like or config.array_like
    )


def test_a_message_that_means_the_same_has_the_same_preface() -> None:
    """Names of classes, defaults, and the order in which messages are listed do not travel."""
    assert preface(like(Ask), Say) == preface(Say, Ask)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"more": int}, id="a field more"),
        pytest.param({"note": None}, id="one less"),
        pytest.param({"note": int | None}, id="another type"),
        pytest.param({"seq": int}, id="no bound"),
        pytest.param({"seq": Annotated[int, msgspec.Meta(ge=1)]}, id="another bound"),
        pytest.param({"tag": "asks"}, id="another tag"),
        pytest.param({"parts": list[like(Part, kind=Literal["a", "b", "c"])]}, id="another word in a part"),
        pytest.param({"parts": list[like(Part, host=str)]}, id="a part with a field more"),
    ],
)
def test_whatever_travels_otherwise_makes_another_preface(other: dict) -> None:
    assert preface(like(Ask, **other), Say) != preface(Ask, Say)


def test_fields_without_their_names_make_another_preface() -> None:
    assert preface(like(Ask, array_like=True)) != preface(Ask)


def test_fields_that_changed_places_make_another_preface() -> None:
    turned = msgspec.defstruct("Part", [("kind", Literal["a", "b"]), ("id", str)], array_like=True)
    same = msgspec.defstruct("Part", [("id", str), ("kind", Literal["a", "b"])], array_like=True)
    assert preface(like(Ask, parts=list[turned])) != preface(like(Ask, parts=list[same]))


def test_a_number_of_its_own_makes_another_preface() -> None:
    assert Protocol(b"ED", Ask, number=7).preface != Protocol(b"ED", Ask, number=8).preface


def test_an_error_names_both_protocols() -> None:
    theirs, ours = Protocol(b"ED", Say), Protocol(b"ED", Ask)
    with pytest.raises(ProtocolVersionError) as caught:
        ours.body(memoryview(theirs.preface + b"anything"))
    assert (caught.value.theirs, caught.value.ours) == (theirs.name, ours.name)
    assert theirs.name in str(caught.value) and ours.name in str(caught.value)


def test_every_process_computes_the_same() -> None:
    code = "from edldist.wire.messages import PROTOCOL; print(PROTOCOL.name)"
    for seed in ("1", "2"):
        environment = dict(os.environ, PYTHONHASHSEED=seed)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == PROTOCOL.name, done.stderr
