"""What a verification leaves: verify.json, claims.csv, classes.csv, verify.md and report.html."""

from __future__ import annotations

from pathlib import Path

from nas_core.analysis.report.other_pages import write_verification_page
from nas_core.analysis.verification import VerificationReport, claim_table, class_table, render
from nas_core.base.files import write_bytes
from tasks.results import write_table


def write_verification(place: Path, report: VerificationReport) -> list[Path]:
    """Write them into the folder `place`; returns their paths."""
    paths = [place / name for name in ("verify.json", "claims.csv", "classes.csv", "verify.md")]
    report.write(paths[0])
    write_table(paths[1], claim_table(report.architectures))
    write_table(paths[2], class_table(report.architectures))
    write_bytes(paths[3], render(report).encode())
    return [*paths, write_verification_page(place, report)]
