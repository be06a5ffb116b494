"""Findings for a person, or for a script."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import TextIO

from rich.text import Text

from edldist_launch.doctor.finding import Finding
from edldist_launch.view.console import PlainConsole, shown

__all__ = ["OF_A_JOB", "OF_A_MACHINE", "show_findings"]

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


OF_A_MACHINE = (
    "{} to mend before a job runs here, {} to look at",
    "jobs run here; {} to look at",
    "all is well",
)
OF_A_JOB = ("{} that keep the job from getting on, {} to look at", "{} to look at", "nothing else to look at")


def show_findings(
    findings: Iterable[Finding], stream: TextIO, as_json: bool, last: tuple[str, str, str] = OF_A_MACHINE
) -> bool:
    """Print findings as they come (as JSON: together); whether one of them is a fail.

    Args:
        last: the last line, with the numbers of fails and warnings; with that of warnings; where all is well.
    """
    if as_json:
        known = list(findings)
        print(json.dumps([asdict(finding) for finding in known], indent=2), file=stream)
        return any(finding.level == "fail" for finding in known)
    console = PlainConsole(file=stream)
    levels: Counter[str] = Counter()
    for finding in findings:
        levels[finding.level] += 1
        style = STYLES[finding.level]
        line = Text.assemble((f"{finding.level:<5}", style), f"{finding.check:<16}", shown(finding.said))
        console.print(line, soft_wrap=True)
        if finding.remedy:
            console.print(f"{'':21}-> {finding.remedy}", soft_wrap=True)
    if levels["fail"]:
        console.print(last[0].format(levels["fail"], levels["warn"]))
    elif levels["warn"]:
        console.print(last[1].format(levels["warn"]))
    else:
        console.print(last[2])
    return levels["fail"] > 0
