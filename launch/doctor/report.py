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

__all__ = ["show_findings"]

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def show_findings(findings: Iterable[Finding], stream: TextIO, as_json: bool) -> bool:
    """Print findings as they come (as JSON: together); whether one of them is a fail."""
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
        console.print(f"{levels['fail']} to mend before a job runs here, {levels['warn']} to look at")
    elif levels["warn"]:
        console.print(f"jobs run here; {levels['warn']} to look at")
    else:
        console.print("all is well")
    return levels["fail"] > 0
