"""What a person sees while hedypet works: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

from hedypet_bids.errors import BadDataError
from hedypet_bids.io.manifest import Manifest, StepRecord
from hedypet_bids.run.job import ParticipantResult
from hedypet_bids.run.schedule import COUNTED, NOT_CHOSEN, UNNEEDED

if TYPE_CHECKING:
    from hedypet_bids.group.readouts import GroupTables
    from hedypet_bids.model import InputCheck

_NONE_ASKED = "none of its scans has the labels given"

FINAL_STATES = ("ran", "done", "skipped", "failed")


class Console:
    """Progress and summaries on standard error, plans on standard output."""

    def __init__(self, *, verbose: bool, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._verbose = verbose
        self._bars: dict[str, Any] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            bar.close()

    def step(self, label: str, step: str, state: str) -> None:
        """Show that a step of a participant has started or ended."""
        if self.stream.isatty():
            self._advance_bar(label, step, state)
        elif state in FINAL_STATES and not self._verbose:
            seconds = time.monotonic() - self._started
            print(f"[{seconds:7.1f} s] sub-{label} {step}: {state}", file=self.stream, flush=True)

    def _advance_bar(self, label: str, step: str, state: str) -> None:
        if label not in self._bars:
            self._bars[label] = tqdm(
                desc=f"sub-{label}",
                position=len(self._bars),
                file=self.stream,
                bar_format="{desc} {bar:20} {n_fmt}/{total_fmt} [{elapsed}] {postfix}",
            )
        bar = self._bars[label]
        if state == COUNTED:
            bar.total = int(step)
        elif state != UNNEEDED:
            bar.set_postfix_str(f"{step}: {state}", refresh=False)
        bar.update(1 if state in (*FINAL_STATES, UNNEEDED) else 0)
        bar.refresh()

    def show_plan(self, results: Sequence[ParticipantResult]) -> None:
        """Print per participant what was found, what is wrong, and which steps would run or why not."""
        for result in results:
            print(f"sub-{result.label}")
            for scan in dict.fromkeys(check.scan for check in result.checks):
                _print_checks([check for check in result.checks if check.scan == scan], scan)
            if result.checks and result.records:
                print("  steps")
            width = max((len(record.title) for record in result.records), default=0)
            for record in result.records:
                print(f"    {record.title:<{width}}  {record.state:<8} {record.reason}")
                for missing, reason in record.missing:
                    print(f"    {'':<{width}}  without  {missing}: {reason}")
            if result.nothing_selected:
                print(f"  nothing is asked for: {_NONE_ASKED}")
            elif not result.records and not any(check.state == "problem" for check in result.checks):
                print(f"  problem: {result.error}")

    def summarise(self, results: Sequence[ParticipantResult], output: Path, code: int) -> None:
        """Say for each participant what was left out or failed, and in the last line what was done."""
        for result in results:
            for line in _left_out(result):
                self._print(line)
        unasked = [result for result in results if result.nothing_selected]
        if unasked:
            listed = ", ".join(f"sub-{result.label}" for result in unasked)
            self._print(f"nothing is asked for of {listed}: {_NONE_ASKED}")
            results = [result for result in results if not result.nothing_selected]
        failed = [result for result in results if result.failed]
        finished = len(results) - len(failed)
        where = f"outputs in {output}"
        if next(output.glob("sub-*.html"), None):
            where += f", reports in {output / 'sub-*.html'}"
        self._print(
            f"hedypet: {finished} of {len(results)} participants finished"
            + (f", {len(failed)} failed ({', '.join('sub-' + r.label for r in failed)})" if failed else "")
            + f" in {time.monotonic() - self._started:.0f} s; {where} (exit code {code})"
        )

    def summarise_group(self, tables: GroupTables, output: Path) -> None:
        """Name the participants with something wrong, and say in one line which tables were written."""
        for label, reason in [*tables.problems.items(), *tables.failures.items()]:
            self._print(f"sub-{label} FAILED: {reason}")
        listed = ", ".join(f"{name} ({rows} rows)" for name, rows in tables.rows.items())
        self._print(
            f"hedypet: group tables of {tables.n_participants} participants in {output / 'readouts'}: "
            f"{listed}; page {output / 'group.html'} (exit code {tables.exit_code})"
        )

    def show_group_plan(self, manifests: Mapping[str, Manifest | BadDataError], output: Path) -> None:
        """Print per participant which scans the tables would hold, or why they cannot be read."""
        for label, found in manifests.items():
            if isinstance(found, BadDataError):
                print(f"sub-{label}  problem: {found}")
                continue
            scans = ", ".join(str(scan.name) or "one scan" for scan in found.scans) or "no scan"
            print(f"sub-{label}  {scans}")
            for record in found.failed:
                print(f"  failed in the last run: {record.title}: {record.reason}")
        print(f"The tables of {len(manifests)} participants would be written to {output / 'readouts'}.")

    def _print(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


def _print_checks(checks: Sequence[InputCheck], scan: str) -> None:
    if scan:
        print(f"  {scan}")
    widest = max(len(check.kind) for check in checks)
    for check in checks:
        text = check.text.replace("\n", "\n" + (widest + 14) * " ")
        print(f"  {check.kind:<{widest}}  {check.state:<9} {text}".rstrip())


def _left_out(result: ParticipantResult) -> list[str]:
    lines = []
    if result.error:
        lines.append(f"sub-{result.label} FAILED: {result.error}")
    for check in dict.fromkeys(result.checks):
        if check.state == "problem" and check.text not in result.error:
            about = f"{check.scan} {check.kind}".strip()
            lines.append(f"sub-{result.label}: look at {about}: {check.text}")
    skipped = [r for r in result.records if r.state == "skipped"]
    chosen = [r for r in skipped if r.reason.startswith(NOT_CHOSEN)]
    others = dict.fromkeys(f"{r.title} ({r.reason})" for r in skipped if r not in chosen)
    if others:
        lines.append(f"sub-{result.label}: left out: {'; '.join(others)}")
    if chosen:
        lines.append(f"sub-{result.label}: left out by --steps: {', '.join(r.title for r in chosen)}")
    for reason, parts in _without(result.records).items():
        lines.append(f"sub-{result.label}: n/a: {', '.join(parts)} ({reason})")
    return lines


def _without(records: Sequence[StepRecord]) -> dict[str, list[str]]:
    """What steps left out although they ran, by the reason."""
    found: dict[str, list[str]] = {}
    for record in records:
        for part, reason in record.missing if record.state in ("ran", "done") else ():
            found.setdefault(reason, []).append(f"{part} [{record.about}]" if record.about else part)
    return found
