"""What the options of the command line may be; other text is refused with its value and what is allowed."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from typing import Any

import click

from edldist.address import parse_address, parse_advertised, parse_place
from edldist.address_file import parse_coordinator
from edldist.bounds import LONGEST_TTL_S, LONGEST_WAIT_S
from edldist.errors import ConfigError
from edldist.reference import MODEL as _MODEL
from edldist.reference import MODEL_FORMS

__all__ = [
    "BIND",
    "COORDINATOR",
    "DEVICE",
    "FACTORY",
    "HTTP",
    "MODEL",
    "NAME",
    "TTL_S",
    "WAIT_S",
    "BatchSize",
    "Option",
    "Override",
    "Ranks",
    "Seconds",
    "advertised",
    "version",
]


def _pattern(form: str, allowed: str) -> Callable[[str], str]:
    """A type of option: text of one form. Other text is refused with its value and what is allowed."""
    whole = re.compile(form)

    def convert(text: str) -> str:
        if not whole.fullmatch(text):
            raise click.BadParameter(f"{text!r} is not {allowed}.")
        return text

    return convert


def _address(parse: Callable[[str], object], allowed: str) -> Callable[[str], str]:
    """A type of option: an address. Anything else is refused with its value and what is allowed."""

    def convert(text: str) -> str:
        try:
            parse(text)
        except ConfigError as exc:
            raise click.BadParameter(f"{text!r} is not {allowed}.") from exc
        return text

    return convert


def advertised(text: str) -> str:
    """A type of option: the host by which this one is reached, out of HOST or HOST:PORT."""
    try:
        return parse_advertised(text).host
    except ConfigError as exc:
        raise click.BadParameter(f"{text!r} is not a host, such as 10.0.0.5 or node-0.") from exc


COORDINATOR = _address(
    lambda text: parse_coordinator(text, "an option"),
    "an address such as tcp://127.0.0.1:7070, or the whole path of a file with one (file:/jobs/it.json)",
)
BIND = _address(
    lambda text: parse_address(text, "an option", port_zero=True),
    "an address such as tcp://127.0.0.1:7070",
)
HTTP = _address(
    lambda text: parse_place(text, "an option", port_zero=True), "HOST:PORT, such as 127.0.0.1:7071"
)
FACTORY = _pattern(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", "module:factory, such as package.module:factory")
MODEL = _pattern(_MODEL[1:-1], MODEL_FORMS)
NAME = _pattern(r"[A-Za-z0-9_.-]{1,100}", "up to 100 letters, digits, `_`, `.` and `-`")
DEVICE = _pattern(r"[a-z]+(:\d+)?", "auto, cpu, cuda, cuda:N or another torch device")


class Seconds(click.FloatRange):
    """So many seconds; "not a number" is in no range, though no comparison says so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds


TTL_S = Seconds(min=0, min_open=True, max=LONGEST_TTL_S)
WAIT_S = Seconds(min=0, min_open=True, max=LONGEST_WAIT_S)


def version(text: str) -> str:
    from edldist.labels.fingerprint import check_version

    try:
        return check_version(text)
    except ConfigError as exc:
        raise click.BadParameter(str(exc)) from exc


class BatchSize(click.IntRange):
    """A whole number of a range, or ``auto``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return value
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as exc:
            raise click.BadParameter(
                f"{value!r} is not in the range {self._describe_range()}, nor auto.", ctx, param
            ) from exc


class Option(click.Option):
    """One that says which variable holds a wrong value, where that is not on the command line."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        try:
            return super().process_value(ctx, value)
        except click.BadParameter as exc:
            if ctx.get_parameter_source(self.name or "") is not click.core.ParameterSource.ENVIRONMENT:
                raise
            raise click.BadParameter(f"{exc.message} It is the value of {self.envvar}.", ctx, self) from exc


class Ranks(click.IntRange):
    """A whole number, ``gpu`` or ``auto``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("gpu", "auto"):
            return value
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as exc:
            raise click.BadParameter(
                f"{value!r} is not in the range {self._describe_range()}, nor gpu or auto.", ctx, param
            ) from exc


class Override(click.ParamType[str]):
    """A ``key=value``; a variable may hold several, parted and quoted as in a shell."""

    name = "override"

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def split_envvar_value(self, rv: str) -> list[str]:
        try:
            return shlex.split(rv)
        except ValueError as exc:
            raise click.BadParameter(f"{self._variable}={rv!r}: {exc}; quote as in a shell") from exc
