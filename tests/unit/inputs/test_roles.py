"""Which image plays which part in a scan, and what is said when that is unclear."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from small_dataset import FULL, dataset

from hedypet_bids.errors import BadDataError
from hedypet_bids.inputs.dataset import Dataset
from hedypet_bids.inputs.roles import Chooser, Images, Roles
from hedypet_bids.names import ScanName
from hedypet_bids.settings import Selection

MR = "sub-1/ses-{0}/anat/sub-1_ses-{0}_acq-MPRAGE_T1w.nii"
CT = "sub-1/ses-{0}/ct/sub-1_ses-{0}_ct.nii"
PET = "sub-1/ses-{0}/pet/sub-1_ses-{0}_pet.nii"


def images(root: Path, *names: str, sessions: Sequence[str] = ()) -> Images:
    label = names[0].partition("/")[0].removeprefix("sub-")
    return Images.of(Dataset(dataset(root, *names)).images(label), sessions)


def roles(found: Images, scan: ScanName | None = None, **how: object) -> Roles:
    chooser = Chooser(Selection(), **how)  # type: ignore[arg-type]
    return chooser.roles(scan or found.scans[0], found)


def test_every_image_of_a_full_scan_plays_its_part(tmp_path: Path) -> None:
    found = images(tmp_path, *FULL)
    assert found.scans == (ScanName("a"),)
    chosen = roles(found)
    assert chosen.dynamic is not None and "acdynPSF" in chosen.dynamic.path.name
    assert [s.entities["reconstruction"] for s in chosen.statics] == ["acstatPSF", "acstatOSEM"]
    assert chosen.ct is not None and chosen.ct.entities["reconstruction"] == "br38f"
    assert [s.entities["reconstruction"] for s in chosen.other_cts] == ["ac"]
    assert chosen.topogram is not None
    assert chosen.head_mr is not None and "MPRAGE" in chosen.head_mr.path.name
    assert [m.entities["acquisition"] for m in chosen.head_mr_group] == ["DIXONheadIN"]
    assert chosen.body_mr is not None and "DIXONbodyIN" in chosen.body_mr.path.name
    assert {m.entities["acquisition"] for m in chosen.body_mr_group} == {"DIXONbodyW", "FASTVIEW"}
    # One session alone has MR: nothing was chosen, so there is nothing to say.
    assert chosen.notes == ()


def test_no_sessions_odd_labels_and_one_image_are_enough(tmp_path: Path) -> None:
    found = images(tmp_path, "sub-XyZ12345/pet/sub-XyZ12345_pet.nii")
    assert found.scans == (ScanName(),)
    chosen = roles(found)
    assert [static.stem for static in chosen.statics] == ["sub-XyZ12345"]
    assert str(chosen.statics[0].folder) == "sub-XyZ12345"
    assert chosen.dynamic is None and chosen.ct is None and chosen.head_mr is None


def test_no_pet_is_one_scan_without_a_name(tmp_path: Path) -> None:
    found = images(tmp_path, CT.format("a"), MR.format("b"))
    assert found.scans == (ScanName(),)
    chosen = roles(found)
    assert chosen.ct is not None and chosen.head_mr is not None and not chosen.statics


def test_sessions_tracers_and_runs_are_scans_of_their_own(tmp_path: Path) -> None:
    pets = [
        f"sub-1/ses-{session}/pet/sub-1_ses-{session}_trc-{tracer}{run}_pet.nii"
        for session in ("1", "10", "2")
        for tracer in ("FDG", "DOPA")
        for run in ("_run-1", "_run-2")
    ]
    found = images(tmp_path, *pets)
    assert found.scans == tuple(
        ScanName(session, tracer, run)
        for session in ("1", "2", "10")
        for tracer in ("DOPA", "FDG")
        for run in ("1", "2")
    )
    for scan in found.scans:
        (static,) = roles(found, scan).statics
        assert ScanName.of(static) == scan


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [
        # As people count where the table does not say when.
        ((), ["base", "follow2", "follow10"]),
        (("follow10", "follow2", "base"), ["follow10", "follow2", "base"]),
        # Those that the table leaves out come last.
        (("follow2",), ["follow2", "base", "follow10"]),
    ],
)
def test_the_order_of_sessions(tmp_path: Path, sessions: tuple[str, ...], expected: list[str]) -> None:
    found = images(tmp_path, *(PET.format(s) for s in ("base", "follow10", "follow2")), sessions=sessions)
    assert [scan.session for scan in found.scans] == expected


@pytest.mark.parametrize(
    ("sessions", "nearest"),
    [
        # By label 2 is nearest to 1; of two that are equally near the earlier one.
        ((), {"1": "2", "2": "2", "3": "2", "4": "5", "5": "5"}),
        (("5", "1", "4", "3", "2"), {"1": "5", "2": "2", "3": "2", "4": "5", "5": "5"}),
    ],
    ids=["labels", "times"],
)
def test_images_are_of_the_nearest_session(
    tmp_path: Path, sessions: tuple[str, ...], nearest: dict[str, str]
) -> None:
    pets = [PET.format(n) for n in "12345"]
    found = images(tmp_path, *pets, MR.format("2"), MR.format("5"), CT.format("4"), sessions=sessions)
    for scan in found.scans:
        chosen = roles(found, scan)
        assert chosen.head_mr is not None and chosen.ct is not None
        assert chosen.head_mr.entities["session"] == nearest[scan.session]
        assert chosen.ct.entities["session"] == "4"
        # What is of the scan's own session needs no words.
        of_others = {("CT", "4"), ("T1w", nearest[scan.session])} - {(k, scan.session) for k in ("CT", "T1w")}
        assert len(chosen.notes) == len(of_others)
        for kind, session in of_others:
            assert any(kind in note and f"ses-{session}," in note for note in chosen.notes)


def test_anatomy_of_the_same_run_or_tracer_goes_first(tmp_path: Path) -> None:
    found = images(
        tmp_path,
        *(f"sub-1/pet/sub-1_run-{n}_pet.nii" for n in "123"),
        *(f"sub-1/ct/sub-1{run}_ct.nii" for run in ("_run-1", "_run-2", "")),
    )
    cts = [roles(found, scan).ct for scan in found.scans]
    assert [ct.entities.get("run") for ct in cts if ct] == ["1", "2", None]


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("static", ["pet/sub-1_rec-x_pet.nii", "pet/sub-1_rec-y_pet.nii"]),
        ("dynamic", ["pet/sub-1_rec-dynx_pet.nii", "pet/sub-1_rec-dyny_pet.nii"]),
        ("dynamic", ["pet/sub-1_task-dynx_rec-z_pet.nii", "pet/sub-1_task-dyny_rec-z_pet.nii"]),
        ("dynamic", ["pet/sub-1_task-dynx_pet.nii", "pet/sub-1_task-dyny_pet.nii"]),
        ("ct", ["ct/sub-1_rec-x_ct.nii", "ct/sub-1_rec-y_ct.nii"]),
        ("ct", ["ct/sub-1_acq-x_ct.nii", "ct/sub-1_acq-y_ct.nii"]),
        ("head_mr", ["anat/sub-1_acq-x_T1w.nii", "anat/sub-1_acq-y_T1w.nii"]),
        ("head_mr", ["anat/sub-1_run-1_T1w.nii", "anat/sub-1_run-2_T1w.nii"]),
    ],
    ids=lambda value: value if isinstance(value, str) else Path(value[0]).name,
)
def test_several_for_one_part_are_listed_with_a_filter_that_works(
    tmp_path: Path, role: str, names: list[str]
) -> None:
    found = images(tmp_path, *(f"sub-1/{name}" for name in names))
    with pytest.raises(BadDataError) as error:
        roles(found)
    said = str(error.value)
    assert all(name in said for name in names) and "--bids-filter-file" in said
    example = re.search(r"\{.*\}", said)
    assert example is not None
    [(named, wanted)] = json.loads(example.group()).items()
    assert named == role
    (entity,) = wanted
    everything = found.pets + found.cts + found.plain_mrs
    for image in everything:
        chosen = roles(found, filters={role: {entity: image.entities[entity]}})
        taken = chosen.statics[:1] if role == "static" else (getattr(chosen, role),)
        assert taken == (image,)
    flag = re.search(r"--(static|dynamic|ct)-rec", said)
    if flag and entity == "reconstruction":
        label = {f"{flag.group(1)}_rec": everything[1].entities[entity]}
        chosen = Chooser(Selection(**label)).roles(found.scans[0], found)  # type: ignore[arg-type]
        assert everything[1] in (chosen.dynamic, chosen.ct, *chosen.statics[:1])


def test_filters_take_short_and_long_entities_and_lists(tmp_path: Path) -> None:
    found = images(tmp_path, "sub-1/pet/sub-1_rec-x_pet.nii", "sub-1/pet/sub-1_rec-y_pet.nii")
    for wanted in ({"rec": "y"}, {"reconstruction": "y"}, {"reconstruction": ["y", "z"]}):
        (chosen, other) = roles(found, filters={"static": wanted}).statics
        assert chosen.entities["reconstruction"] == "y" and other.entities["reconstruction"] == "x"


def test_a_filter_that_fits_nothing_leaves_no_static_image(tmp_path: Path) -> None:
    found = images(tmp_path, *FULL)
    chosen = roles(found, filters={"static": {"reconstruction": "other"}})
    assert chosen.statics == () and chosen.dynamic is not None


def test_reconstructions_narrow_what_is_there(tmp_path: Path) -> None:
    found = images(tmp_path, *FULL)
    chosen = roles(found, reconstructions=("acstatOSEM",))
    assert [s.entities["reconstruction"] for s in chosen.statics] == ["acstatOSEM"]
    assert chosen.dynamic is None and chosen.ct is not None


@pytest.mark.parametrize(
    ("name", "n", "flag"),
    [("rec-acdynPSF", 1, "--dynamic-rec"), ("rec-acstatPSF", 4, "--static-rec")],
)
def test_a_reconstruction_that_cannot_play_its_part(tmp_path: Path, name: str, n: int, flag: str) -> None:
    other = "acstatPSF" if "dyn" in name else "acdynPSF"
    root = dataset(tmp_path, f"sub-1/pet/sub-1_rec-{other}_pet.nii")
    (root / f"sub-1/pet/sub-1_rec-{other}_pet.nii").rename(root / f"sub-1/pet/sub-1_{name}_pet.nii")
    found = Images.of(Dataset(root).images("1"), [])
    with pytest.raises(BadDataError, match=flag) as error:
        roles(found)
    assert f"{n} frame" in str(error.value) and name in str(error.value)


def test_an_image_that_is_no_image_is_bad_data(tmp_path: Path) -> None:
    root = dataset(tmp_path, "sub-1/pet/sub-1_pet.nii.gz")
    (root / "sub-1/pet/sub-1_pet.nii.gz").write_bytes(b"junk")
    found = Images.of(Dataset(root).images("1"), [])
    with pytest.raises(BadDataError, match="sub-1_pet"):
        roles(found)
