"""The findings as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.doctor.finding import Finding

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "missing": ("✗", "bold red")}


def render(findings: Sequence[Finding], console: Console) -> None:
    """Prints a row a finding, its advice under it, and a last line that counts."""
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    table.add_column(width=1)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(ratio=1)
    for finding in findings:
        mark, style = _MARKS[finding.status]
        table.add_row(Text(mark, style=style), Text(finding.name), Text(finding.detail))
        if finding.advice:
            table.add_row("", "", Text(f"→ {finding.advice}", style="cyan"))
    console.print(table)
    missing = sum(finding.status == "missing" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    if missing:
        verdict, style = f"{missing} required, missing", "bold red"
    elif warned:
        verdict, style = f"ready to train; {warned} could be better", "yellow"
    else:
        verdict, style = "ready to train", "green"
    console.print()
    console.print(Text(verdict, style=style))


def to_json(findings: Sequence[Finding]) -> str:
    """A JSON list of objects with name, status, detail and advice."""
    return json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False)
