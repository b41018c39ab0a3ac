"""A participant read once: scans told apart, broken ones left out, outputs of two scans never one file."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_dataset import FULL, dataset, image, session_table, sidecar_of

from hedypet_bids.inputs.dataset import Dataset, Request
from hedypet_bids.inputs.subject import read_subject
from hedypet_bids.io.manifest import Output
from hedypet_bids.io.store import Store
from hedypet_bids.kernels.kinetics import kinetic_models
from hedypet_bids.model import Scan, Subject
from hedypet_bids.names import ScanName
from hedypet_bids.pipeline import process_participant
from hedypet_bids.run.schedule import Schedule
from hedypet_bids.settings import Settings
from hedypet_bids.steps.step import Context

PET = "sub-1/ses-{0}/pet/sub-1_ses-{0}_pet.nii"
CT = "sub-1/ses-{0}/ct/sub-1_ses-{0}_ct.nii"
MR = "sub-1/ses-{0}/anat/sub-1_ses-{0}_acq-MPRAGE_T1w.nii"
TASKS = {"totalsegmentator": ("total", "tissue", "body"), "synthseg": ("synthseg", "synthsegparc")}


def subject(root: Path, label: str = "1", **request: Any) -> Subject:
    return read_subject(Dataset(root, Request(**request)), label)


def change(path: Path, **entries: Any) -> None:
    content = {**json.loads(sidecar_of(path).read_text()), **entries}
    sidecar_of(path).write_text(json.dumps(content))


def planned(read: Subject, root: Path, **sections: dict[str, Any]) -> tuple[Output, ...]:
    """Everything that a run would make."""
    chosen = Settings().with_values(sections)
    schedule = Schedule(read.label, Context(chosen, Store(root.parent / "out", {"raw": root})), dry=True)
    process_participant(read, tuple(kinetic_models(chosen)), schedule.add)
    assert [record.reason for record in schedule.run() if record.state == "failed"] == []
    return schedule.outputs()


def transforms(read: Subject, root: Path) -> list[str]:
    made = planned(read, root, register={"method": "identity"})
    return [Path(each.path).name for each in made if each.kind == ("transform", "head")]


# ---- what is read


def test_one_scan_has_no_need_to_be_told_apart(tmp_path: Path) -> None:
    read = subject(dataset(tmp_path / "raw", *FULL), "01")
    (scan,) = read.scans
    assert read.all_scans == (ScanName("a"),) and not read.broken
    assert scan.alone and scan.about == "" and scan.stem == "sub-01"
    assert scan.told_apart_by == {} and scan.dynamic is not None
    assert len(scan.metadata(scan.dynamic).frames) == 4
    assert {path.name for path in scan.pet} == {Path(name).name for name in FULL if "_pet" in name}


def test_sessions_are_scans_in_the_order_of_their_times(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", *map(PET.format, ("a", "b", "c")), MR.format("c"))
    session_table(root, "1", a="2025-03-01T00:00:00", b="2025-01-01T00:00:00", c="2025-02-01T00:00:00")
    read = subject(root)
    assert [scan.name.session for scan in read.scans] == ["b", "c", "a"]
    assert [scan.about for scan in read.scans] == ["ses-b", "ses-c", "ses-a"]
    assert [scan.stem for scan in read.scans] == ["sub-1_ses-b", "sub-1_ses-c", "sub-1_ses-a"]
    assert all(scan.told_apart_by == {"ses": scan.name.session} for scan in read.scans)


def test_asking_for_one_scan_changes_no_name(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", *map(PET.format, "ab"), CT.format("a"), MR.format("b"))
    everything = subject(root)
    for scan in everything.scans:
        one = subject(root, session_labels=(scan.name.session,))
        assert one.all_scans == everything.all_scans
        (found,) = one.scans
        assert (found.stem, found.about, found.told_apart_by) == (scan.stem, scan.about, scan.told_apart_by)
        assert found.ct == scan.ct and found.head_mr == scan.head_mr
        assert set(planned(one, root)) <= {
            Output(o.kind, o.path, (str(scan.name),), o.step) for o in planned(everything, root)
        }


def test_nothing_asked_for_is_no_scan_and_nothing_broken(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", PET.format("a"))
    read = subject(root, pet_labels={"tracer": ("DOPA",)})
    assert read.scans == () and read.broken == () and read.all_scans == (ScanName("a"),)


def test_a_broken_scan_costs_no_other(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", *map(PET.format, "abc"), CT.format("a"))
    change(root / PET.format("b"), Units="g/mL")
    (root / PET.format("c")).write_bytes(b"junk")
    read = subject(root)
    assert [scan.name.session for scan in read.scans] == ["a"]
    assert {scan.name.session: scan.exit_code for scan in read.broken} == {"b": 65, "c": 65}
    reasons = {scan.name.session: scan.reason for scan in read.broken}
    assert "Units" in reasons["b"] and "sub-1_ses-c_pet.nii" in reasons["c"]
    assert not read.scans[0].alone
    problems = {check.scan for check in read.checks if check.kind == "images" and check.state == "problem"}
    assert problems == {"ses-b", "ses-c"}


def test_a_broken_scan_that_was_not_asked_for_is_no_concern(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", *map(PET.format, "ab"))
    (root / PET.format("b")).write_bytes(b"junk")
    read = subject(root, session_labels=("a",))
    assert [scan.name.session for scan in read.scans] == ["a"] and not read.broken


def test_two_dynamic_series_in_one_scan_break_that_scan_alone(tmp_path: Path) -> None:
    two = ["sub-1/ses-b/pet/sub-1_ses-b_rec-dynx_pet.nii", "sub-1/ses-b/pet/sub-1_ses-b_rec-dyny_pet.nii"]
    root = dataset(tmp_path / "raw", PET.format("a"), *two)
    read = subject(root)
    (broken,) = read.broken
    assert broken.name == ScanName("b") and "--dynamic-rec" in broken.reason
    chosen = Settings().with_values({"selection": {"dynamic_rec": "dyny"}})
    again = read_subject(Dataset(root, selection=chosen.selection), "1")
    assert not again.broken and again.scans[1].dynamic is not None
    assert again.scans[1].dynamic.path.name == Path(two[1]).name


def test_weight_is_that_of_the_day(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", *map(PET.format, "ab"))
    (root / "participants.tsv").write_text("participant_id\tweight\tsex\nsub-1\t70\tF\n")
    (root / "sub-1" / "sub-1_sessions.tsv").write_text("session_id\tweight\nses-a\tn/a\nses-b\t80\n")
    assert [scan.person.weight_kg for scan in subject(root).scans] == [70, 80]
    assert {scan.person.sex for scan in subject(root).scans} == {"F"}


def test_ready_segmentations_are_found_by_task_and_image(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", *FULL)
    ready, brain = tmp_path / "ts", tmp_path / "ss"
    for name in ("total", "tissue", "bodyV2"):
        image(ready / f"sub-01/ses-a/ct/sub-01_ses-a_rec-br38f_seg-{name}_dseg.nii.gz")
    image(ready / "sub-01/ses-a/ct/sub-01_ses-a_rec-ac_seg-total_dseg.nii.gz")
    for name in ("synthseg", "synthsegparc"):
        image(brain / f"sub-01/ses-b/anat/sub-01_ses-b_acq-MPRAGE_seg-{name}_dseg.nii.gz")
    (scan,) = subject(root, "01", derivatives={"totalsegmentator": ready, "synthseg": brain}).scans
    assert {task: path.name for task, path in scan.ready_segmentations.items()} == {
        "total": "sub-01_ses-a_rec-br38f_seg-total_dseg.nii.gz",
        "tissue": "sub-01_ses-a_rec-br38f_seg-tissue_dseg.nii.gz",
        "body": "sub-01_ses-a_rec-br38f_seg-bodyV2_dseg.nii.gz",
        "synthseg": "sub-01_ses-b_acq-MPRAGE_seg-synthseg_dseg.nii.gz",
        "synthsegparc": "sub-01_ses-b_acq-MPRAGE_seg-synthsegparc_dseg.nii.gz",
    }


def test_a_segmentation_with_more_entities_is_of_another_image(tmp_path: Path) -> None:
    pets = ["sub-1/pet/sub-1_pet.nii", "sub-1/pet/sub-1_run-2_pet.nii"]
    root = dataset(tmp_path / "raw", *pets, "sub-1/ct/sub-1_ct.nii", "sub-1/ct/sub-1_run-2_ct.nii")
    ready(root)
    found = [scan.ready_segmentations["total"].name for scan in subject(root).scans]
    assert found == ["sub-1_seg-total_dseg.nii.gz", "sub-1_run-2_seg-total_dseg.nii.gz"]


def test_a_dynamic_series_alone_is_planned_with_a_mean_of_its_frames(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", "sub-1/pet/sub-1_rec-dyn_pet.nii")
    made = {each.kind: each.path for each in planned(subject(root), root, static={"window_min": [20, 40]})}
    assert made["static_image",] == "sub-1/pet/sub-1_rec-dynmean_pet.nii.gz"
    assert ("means", "sub-1_rec-dynmean_pet.nii.gz", "totalimage", 0) in made


def test_a_correction_of_a_scan_that_was_not_read_is_not_called_lost(tmp_path: Path) -> None:
    root = dataset(tmp_path / "raw", *map(PET.format, "ab"))
    folder = tmp_path / "corrections" / "sub-1"
    folder.mkdir(parents=True)
    (folder / "sub-1_ses-b_pet.json").write_text('{"Units": "kBq/mL"}')
    (folder / "sub-1_ses-a_typo.json").write_text("{}")
    for sessions in ((), ("a",)):
        read = subject(root, corrections=folder.parent, session_labels=sessions)
        lost = [check.text for check in read.checks if check.kind == "corrected" and check.state == "problem"]
        assert len(lost) == 1 and "sub-1_ses-a_typo.json" in lost[0]


# ---- names of what is made


def test_transforms_name_the_ct_where_there_are_several(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one" / "raw", *map(PET.format, "ab"), CT.format("a"), MR.format("m"))
    assert transforms(subject(one), one) == ["sub-1_ses-m_acq-MPRAGE_from-T1w_to-CT_mode-image_xfm.txt"]
    several = dataset(
        tmp_path / "several" / "raw", *map(PET.format, "ab"), *map(CT.format, "ab"), MR.format("m")
    )
    expected = [f"sub-1_ses-m_acq-MPRAGE_from-T1w_to-CT{s}_mode-image_xfm.txt" for s in "ab"]
    assert transforms(subject(several), several) == expected
    # Also where only one of them was asked for.
    assert transforms(subject(several, session_labels=("b",)), several) == expected[1:]


def test_what_scans_share_is_made_once(tmp_path: Path) -> None:
    pets = [f"sub-1/ses-a/pet/sub-1_ses-a_trc-{tracer}_pet.nii" for tracer in ("FDG", "DOPA")]
    root = dataset(tmp_path / "raw", *pets, CT.format("a"), MR.format("a"))
    ready(root)
    made = planned(subject(root), root, register={"method": "identity"})
    both = ("ses-a_trc-DOPA", "ses-a_trc-FDG")
    shared = [each for each in made if each.kind[0] == "labels" and len(each.kind) == 2]
    assert {each.kind[1] for each in shared} == {"total", "tissue", "body", "synthseg", "synthsegparc"}
    assert {each.scans for each in shared} == {both}
    assert [each.scans for each in made if each.kind == ("transform", "head")] == [both]
    spaces = {Path(e.path).name for e in made if e.kind == ("labels", "bodystat", "total")}
    assert spaces == {
        f"sub-1_ses-a_space-bodystattrc{tracer}_seg-total_dseg.nii.gz" for tracer in ("DOPA", "FDG")
    }


def ready(root: Path) -> None:
    """Segmentations of every CT and of every T1w image, which only have to be there to be planned with."""
    for tool, kind in (("totalsegmentator", "ct"), ("synthseg", "T1w")):
        for path in sorted(root.glob(f"sub-*/**/*_{kind}.nii")):
            for task in TASKS[tool]:
                stem = path.name.removesuffix(f"_{kind}.nii")
                folder = root / "derivatives" / tool / path.parent.relative_to(root)
                image(folder / f"{stem}_seg-{task}_dseg.nii.gz")


somewhere = st.sampled_from(["none", "first", "last", "each", "elsewhere"])


@settings(deadline=None, max_examples=40)
@given(
    sessions=st.just([""])
    | st.lists(st.sampled_from(["a", "b", "1", "11"]), min_size=1, max_size=3, unique=True),
    tracers=st.lists(st.sampled_from(["", "18FFDG", "18FDOPA"]), min_size=1, max_size=2, unique=True),
    runs=st.lists(st.sampled_from(["", "1", "11"]), min_size=1, max_size=2, unique=True),
    kinds=st.sampled_from([("dyn",), ("stat",), ("dyn", "stat"), ("dyn", "stat", "statx")]),
    ct=somewhere,
    mr=somewhere,
    per_run=st.booleans(),
)
def test_no_two_scans_share_the_name_of_an_output(
    tmp_path_factory: pytest.TempPathFactory,
    sessions: list[str],
    tracers: list[str],
    runs: list[str],
    kinds: tuple[str, ...],
    ct: str,
    mr: str,
    per_run: bool,
) -> None:
    """Whatever the sessions, tracers and runs, wherever CT and MR were made."""

    def name(session: str, folder: str, *entities: str) -> str:
        place = f"sub-1/{f'ses-{session}/' if session else ''}{folder}/"
        return place + "_".join(filter(None, ["sub-1", f"ses-{session}" if session else "", *entities]))

    def places(where: str) -> list[str]:
        each = {"none": [], "first": sessions[:1], "last": sessions[-1:], "each": sessions}
        return each.get(where, ["elsewhere"])

    scans = [
        (s, f"trc-{t}" if t else "", f"run-{r}" if r else "") for s in sessions for t in tracers for r in runs
    ]
    files = [name(s, "pet", t, f"rec-{kind}", r, "pet.nii") for s, t, r in scans for kind in kinds]
    ct_runs = runs if per_run else [""]
    files += [name(s, "ct", f"run-{r}" if r else "", "ct.nii") for s in places(ct) for r in ct_runs]
    files += [
        name(s, "anat", f"acq-{acq}", "T1w.nii")
        for s in places(mr)
        for acq in ("MPRAGE", "DIXONbodyIN", "DIXONbodyW", "DIXONheadIN")
    ]
    root = dataset(tmp_path_factory.mktemp("names") / "raw", *files)
    ready(root)
    selection = Settings().with_values({"selection": {"static_rec": "stat", "dynamic_rec": "dyn"}}).selection
    read = read_subject(Dataset(root, selection=selection), "1")
    assert not read.broken, read.broken
    assert len(read.scans) == len(scans)
    made = planned(read, root, register={"method": "identity"}, static={"window_min": [20, 40]})
    paths = [each.path for each in made]
    assert len(paths) == len(set(paths))
    assert all(each.path.startswith("sub-1") for each in made)
    kinds_of: dict[str, set[tuple[str | int, ...]]] = defaultdict(set)
    for each in made:
        for scan in each.scans:
            kinds_of[scan].add(each.kind)
    assert set(kinds_of) == {str(scan.name) for scan in read.scans}
    for scan in read.scans:
        assert {("page",)} < kinds_of[str(scan.name)]
        _check_anatomy(scan, kinds_of[str(scan.name)])


def _check_anatomy(scan: Scan, kinds: set[tuple[str | int, ...]]) -> None:
    """What a scan's images allow is planned for it."""
    assert (("labels", "total") in kinds) == (scan.ct is not None)
    assert (("labels", "synthseg") in kinds) == (scan.head_mr is not None)
    assert (("transform", "head") in kinds) == (scan.head_mr is not None)
    assert (("labels", "bodydyn", "total") in kinds) == (scan.ct is not None and scan.dynamic is not None)
