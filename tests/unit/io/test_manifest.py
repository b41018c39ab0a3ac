"""The list of a participant's outputs: read back as written, merged over runs, damaged in every way."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedypet_bids import names
from hedypet_bids.errors import BadDataError
from hedypet_bids.io.manifest import Manifest, Output, ScanEntry, StepRecord, merged
from hedypet_bids.names import ScanName

A, B, C = ScanName("a"), ScanName("b", "18FFDG"), ScanName("c")

fuzz = partial(
    settings, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150
)


def entry(name: ScanName) -> ScanEntry:
    stem = f"sub-1_{name}"
    return ScanEntry(name, f"{stem}.html", f"{stem}_rec-d_pet.nii.gz", (f"{stem}_pet.nii.gz",))


def output(path: str, *scans: ScanName, kind: tuple[str | int, ...] = ("mean", "total", 1)) -> Output:
    return Output(kind, f"sub-1/{path}", tuple(map(str, scans)), "tacs")


def record(step: str, *scans: ScanName, about: str = "", state: Any = "ran", **more: Any) -> StepRecord:
    about = about or (str(scans[0]) if len(scans) == 1 else "")
    return StepRecord(step, state, about=about, scans=tuple(map(str, scans)), **more)


def of_scans(root: Path, *scans: ScanName, run: str = "r1") -> Manifest:
    """What a run over some scans writes: an anatomy that they share, and curves of each; the files exist."""
    outputs = (
        output("ct.nii.gz", *scans, kind=("labels", "total")),
        *(output(f"{scan}.tsv", scan) for scan in scans),
        output("page.html", *scans, kind=("participant_page",)),
    )
    for each in outputs:
        (root / each.path).parent.mkdir(parents=True, exist_ok=True)
        (root / each.path).touch()
    steps = (
        record("segment total", *scans, about="ct"),
        *(record("tacs", scan) for scan in scans),
        StepRecord("report participant", "ran", scans=tuple(map(str, scans))),
    )
    return Manifest("1", run, tuple(map(entry, scans)), steps, outputs)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = replace(
        of_scans(tmp_path, A, B),
        steps=(
            record("tacs", A, state="failed", reason='"é"\n', exit_code=65, seconds=1.5, peak_mb=2.25),
            record("resample head", B, missing=(("topogram", "no topogram was found"),)),
        ),
    )
    path = made.write(tmp_path)
    assert path == tmp_path / "sub-1" / "sub-1_manifest.json"
    assert Manifest.read(tmp_path, "1") == made
    assert [step.step for step in made.failed] == ["tacs"]


def test_outputs_are_found_by_what_they_are(tmp_path: Path) -> None:
    made = of_scans(tmp_path, A, B)
    found = made.of_scan(entry(B))
    assert found.get("mean", "total", 1) == Path(f"sub-1/{B}.tsv")
    assert found.get("mean", "total", 0) is None
    assert found.of("mean") == {("total", 1): Path(f"sub-1/{B}.tsv")}
    assert found.of("mean", "total") == {1: Path(f"sub-1/{B}.tsv")}
    assert found.of("labels") == {"total": Path("sub-1/ct.nii.gz")}
    assert found.of("labels", "total") == {}


def test_no_manifest_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=r"sub-7_manifest\.json") as error:
        Manifest.read(tmp_path, "7")
    assert error.value.exit_code == 65 and "participant level again" in str(error.value)


@pytest.mark.parametrize("order", [(A, B), (B, A)])
def test_session_by_session_equals_one_run(tmp_path: Path, order: tuple[ScanName, ScanName]) -> None:
    whole = merged(of_scans(tmp_path, A, B), None, in_dataset=[A, B], root=tmp_path)
    first, then = (of_scans(tmp_path, scan) for scan in order)
    kept = merged(first, None, in_dataset=[A, B], root=tmp_path)
    both = merged(then, kept, in_dataset=[A, B], root=tmp_path)
    assert both.scans == whole.scans and both.outputs == whole.outputs
    assert [(s.step, s.about) for s in both.steps] == [(s.step, s.about) for s in whole.steps]
    again = merged(of_scans(tmp_path, A, B), both, in_dataset=[A, B], root=tmp_path)
    assert again == whole


def test_scans_are_in_the_order_of_the_dataset(tmp_path: Path) -> None:
    """Which is that of time, not of names."""
    kept = merged(of_scans(tmp_path, A), None, in_dataset=[B, A], root=tmp_path)
    both = merged(of_scans(tmp_path, B), kept, in_dataset=[B, A], root=tmp_path)
    assert [scan.name for scan in both.scans] == [B, A]
    assert both.outputs[0].scans == (str(B), str(A))


def test_a_scan_that_was_withdrawn_is_dropped(tmp_path: Path) -> None:
    old = of_scans(tmp_path, A, B, C)
    found = merged(of_scans(tmp_path, A), old, in_dataset=[A, C], root=tmp_path)
    assert [scan.name for scan in found.scans] == [A, C]
    assert str(B) not in {scan for each in found.outputs for scan in each.scans}
    assert str(B) not in {step.about for step in found.steps}


def test_outputs_that_are_gone_are_dropped(tmp_path: Path) -> None:
    old = of_scans(tmp_path, A, B)
    (tmp_path / f"sub-1/{B}.tsv").unlink()
    found = merged(of_scans(tmp_path, A), old, in_dataset=[A, B], root=tmp_path)
    assert found.of_scan(entry(B)).get("mean", "total", 1) is None
    assert found.of_scan(entry(B)).get("labels", "total") is not None


def test_what_a_rerun_no_longer_makes_is_dropped(tmp_path: Path) -> None:
    old = of_scans(tmp_path, A)
    new = replace(of_scans(tmp_path, A), outputs=(output("other.tsv", A),))
    assert merged(new, old, in_dataset=[A], root=tmp_path).outputs == new.outputs


def test_a_scan_that_broke_is_dropped_and_its_failure_told_until_it_is_mended(tmp_path: Path) -> None:
    old = of_scans(tmp_path, A, B)
    failed = StepRecord("inputs", "failed", "no sidecar", about=str(B), exit_code=65, scans=(str(B),))
    new = replace(of_scans(tmp_path, A), steps=(failed, *of_scans(tmp_path, A).steps))
    broken = merged(new, old, in_dataset=[A, B], root=tmp_path)
    assert [scan.name for scan in broken.scans] == [A] and broken.failed == (failed,)
    # A run over the other scan alone says nothing of it.
    assert merged(of_scans(tmp_path, A), broken, in_dataset=[A, B], root=tmp_path).failed == (failed,)
    mended = merged(of_scans(tmp_path, B), broken, in_dataset=[A, B], root=tmp_path)
    assert not mended.failed and [scan.name for scan in mended.scans] == [A, B]


def test_a_participant_that_cannot_be_read_has_nothing_current(tmp_path: Path) -> None:
    failed = StepRecord("inputs", "failed", "participants.tsv has two rows", exit_code=65)
    new = Manifest("1", "r2", steps=(failed,))
    found = merged(new, of_scans(tmp_path, A, B), in_dataset=(), root=tmp_path)
    assert found == new


labels = st.sampled_from(["a", "b", "c", "d"])


@fuzz()
@given(runs=st.lists(st.sets(labels, min_size=1), min_size=1, max_size=5))
def test_runs_over_any_scans_in_any_order_list_all_of_them(tmp_path: Path, runs: list[set[str]]) -> None:
    everyone = [ScanName(label) for label in "dbca"]
    found: Manifest | None = None
    for chosen in runs:
        new = of_scans(tmp_path, *(name for name in everyone if name.session in chosen))
        found = merged(new, found, in_dataset=everyone, root=tmp_path)
    assert found is not None
    seen = set().union(*runs)
    expected = [name for name in everyone if name.session in seen]
    whole = merged(of_scans(tmp_path, *expected), None, in_dataset=everyone, root=tmp_path)
    assert found.scans == whole.scans and found.outputs == whole.outputs


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _read(root: Path) -> None:
    try:
        found = Manifest.read(root, "1")
    except BadDataError as error:
        assert names.manifest("1").rpartition("/")[2] in str(error)
        return
    assert all(isinstance(each.path, str) and isinstance(each.kind, tuple) for each in found.outputs)
    for scan in found.scans:
        found.of_scan(scan)


@fuzz()
@given(data=st.data())
def test_any_entry_of_another_kind_is_bad_data(tmp_path: Path, data: st.DataObject) -> None:
    path = of_scans(tmp_path, A, B).write(tmp_path)
    content = json.loads(path.read_text())
    here: Any = content
    for _ in range(data.draw(st.integers(0, 3))):
        deeper = [key for key in (here if isinstance(here, dict) else range(len(here))) if here[key]]
        deeper = [key for key in deeper if isinstance(here[key], dict | list)]
        if not deeper:
            break
        here = here[data.draw(st.sampled_from(deeper))]
    key = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
    if data.draw(st.booleans()):
        here[key] = data.draw(json_values)
    else:
        del here[key]
    path.write_text(json.dumps(content))
    _read(tmp_path)


@fuzz()
@given(data=st.data())
def test_damaged_bytes_are_bad_data(tmp_path: Path, data: st.DataObject) -> None:
    path = of_scans(tmp_path, A).write(tmp_path)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    path.write_bytes(content)
    _read(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"7", b'{"Format": 2}', b"[" * 100_000, b"\xff\xfe"]
)
def test_files_that_are_no_manifest(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / names.manifest("1")
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(BadDataError, match=r"sub-1_manifest\.json"):
        Manifest.read(tmp_path, "1")


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / names.manifest("1")).mkdir(parents=True)
    with pytest.raises(BadDataError):
        Manifest.read(tmp_path, "1")


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(label="2"),
        lambda body: body.pop("scans"),
        lambda body: body.pop("outputs"),
        lambda body: body["scans"].pop(),
        lambda body: body["scans"].append(body["scans"][0]),
        lambda body: body["steps"][0].update(state="skipped"),
        lambda body: body.pop("Checksum"),
    ],
    ids=["label", "no scans", "no outputs", "a scan less", "a scan twice", "another state", "no checksum"],
)
def test_what_was_edited_is_not_taken(tmp_path: Path, change: Any) -> None:
    path = of_scans(tmp_path, A, B).write(tmp_path)
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))
    with pytest.raises(BadDataError, match=path.name):
        Manifest.read(tmp_path, "1")


def test_that_of_another_participant_is_not_taken(tmp_path: Path) -> None:
    made = of_scans(tmp_path, A).write(tmp_path)
    (tmp_path / "sub-2").mkdir()
    made.rename(tmp_path / "sub-2" / "sub-2_manifest.json")
    with pytest.raises(BadDataError, match="sub-2_manifest"):
        Manifest.read(tmp_path, "2")
    assert Manifest.read_if_there(tmp_path, "1") is None
