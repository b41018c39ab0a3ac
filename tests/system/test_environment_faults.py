"""Discs, users, networks and clocks that fail: what is said, what is left, and that a rerun mends it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import environment
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from environment import (
    SOMEBODY,
    as_somebody,
    clock,
    command,
    disc,
    disturbed,
    open_folder,
    remount,
    run,
    without_network,
)
from running import ROOT, only, outputs, steps_that_ran

from hedypet_bids.io.manifest import Manifest

STEPS = ("segment", "resample", "normalise", "tacs", "means", "quality")


@pytest.fixture(scope="module")
def bids(coarse: Path) -> Path:
    """Participant 001 with CT, static and dynamic PET; 002 without the dynamic PET."""
    return coarse


@pytest.fixture(scope="module")
def undisturbed(bids: Path, coarse_head: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of both participants where nothing went wrong."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    done = run(command(*arguments(bids, output, coarse_head)))
    assert done.returncode == 0, done.stderr
    return output


def arguments(bids: Path, output: Path, coarse_head: Path, *more: str | Path) -> tuple[str | Path, ...]:
    """One participant after the other, so that faults come in a known order; all kinds of files."""
    common = ("participant", "--skip-bids-validation", "--settings", coarse_head, "--nprocs", "1")
    return (bids, output, *common, "--steps", *STEPS, *more)


def assert_clear(done: CompletedProcess[str], code: int, *words: str) -> None:
    """The exit code, the message, and no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "Logging error" not in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)


def assert_whole(output: Path) -> None:
    """Every image can be read to its end and has its sidecar; no temporary file is left."""
    assert not list(output.rglob(".tmp-*"))
    for path in output.rglob("*.nii.gz"):
        assert np.asanyarray(nib.load(path).dataobj).size > 0
        assert json.loads(path.with_suffix("").with_suffix(".json").read_text())["hedypet"]["Digest"]
    for path in output.rglob("*.json"):
        json.loads(path.read_text())


def assert_equal(output: Path, expected: Path, leaving_out: Collection[str] = ()) -> None:
    """Byte for byte, times in sidecars aside."""
    wanted, found = outputs(expected), outputs(output)
    assert found.keys() == wanted.keys()
    assert [name for name in found if found[name] != wanted[name] and name not in leaving_out] == []


def assert_mended(done: CompletedProcess[str], output: Path, expected: Path) -> None:
    """The fault is gone, and with it every trace."""
    assert_clear(done, 0)
    assert_whole(output)
    assert_equal(output, expected)


# Memory


@pytest.mark.slow
@pytest.mark.parametrize("limit_mb", [2400, pytest.param(1300, marks=pytest.mark.exhaustive)])
def test_a_tight_address_space_is_made_do_with(
    limit_mb: int, bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    # Two processors for one participant: what would be done side by side.
    one = ("--participant-label", "001", "--nprocs", "2")
    words = command(*arguments(bids, tmp_path / "out", coarse_head, *one))
    limited = f"ulimit -v {limit_mb * 1024}; exec {shlex.join(map(str, words))}"
    assert_clear(run(["bash", "-c", limited]), 0)
    whole = {name: content for name, content in outputs(undisturbed).items() if "sub-002" not in name}
    found = outputs(tmp_path / "out")
    assert [name for name in whole if name.startswith("sub-") and found.get(name) != whole[name]] == []


@pytest.mark.slow
def test_too_small_an_address_space_is_told_before_any_work(
    bids: Path, coarse_head: Path, tmp_path: Path
) -> None:
    words = shlex.join(map(str, command(*arguments(bids, tmp_path / "out", coarse_head))))
    assert_clear(run(["bash", "-c", f"ulimit -v 900000; exec {words}"]), 75, "ulimit -v", "878 MB")
    assert not (tmp_path / "out").exists()


# Discs


@pytest.mark.slow
@pytest.mark.parametrize(
    "room",
    [pytest.param(room, marks=pytest.mark.exhaustive) for room in ("size=8k", "size=400k")]
    + ["nr_inodes=60"],
)
def test_a_full_disc_is_named_and_leaves_whole_files(
    room: str, bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with disc(tmp_path / "disc", room) as small:
        given = arguments(bids, small / "out", coarse_head)
        done = run(command(*given))
        assert_clear(done, 74, str(small / "out"), "No space left on device", "run the same command again")
        assert_whole(small / "out")
        remount(small, "size=500m,nr_inodes=0")
        assert_mended(run(command(*given)), small / "out", undisturbed)


@pytest.mark.slow
def test_a_disc_that_fills_up_half_way(
    bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with disc(tmp_path / "disc", "size=60m") as small:
        given = arguments(bids, small / "out", coarse_head)
        fill = f"cat /dev/zero > {shlex.quote(str(small / 'other'))} 2>/dev/null || true"
        done = disturbed("resample bodystat", fill, *given)
        assert_clear(done, 74, "No space left on device", "resample bodystat", "finished steps are kept")
        assert_whole(small / "out")
        (small / "other").unlink()
        again = run(command(*given))
        assert_mended(again, small / "out", undisturbed)
        assert "sub-001 segment total: done" in again.stderr


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_read_only_disc(bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path) -> None:
    with disc(tmp_path / "disc", "size=500m") as other:
        given = arguments(bids, other / "out", coarse_head)
        remount(other, "ro")
        done = run(command(*given))
        assert_clear(done, 73, str(other / "out"), "Read-only file system")
        assert not (other / "out").exists()
        remount(other, "rw")
        # A file system that finds itself damaged turns read-only in the middle of a run: a view of it that
        # cannot be written is laid over it.
        place = shlex.quote(str(other))
        turn = f"mount --bind {place} {place}; mount -o remount,bind,ro {place}"
        done = disturbed("resample bodystat", turn, *given)
        subprocess.run(["umount", str(other)], check=True)
        assert_clear(done, 73, "Read-only file system", "resample bodystat")
        for path in other.rglob("*.nii.gz"):
            # Nothing can be removed from a read-only disc: one image may stand without its sidecar.
            assert np.asanyarray(nib.load(path).dataobj).size > 0
        assert_mended(run(command(*given)), other / "out", undisturbed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("step", ["resample bodystat", "quality"])
def test_an_output_that_is_removed_in_a_run(
    step: str, bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    given = arguments(bids, output, coarse_head)
    removal = f"mv {shlex.quote(str(output))} {shlex.quote(str(tmp_path / 'gone'))}"
    done = disturbed(step, removal, *given)
    # The other participant is not touched by it.
    words = (f"{step}: ", "No such file or directory", "1 failed (sub-001)")
    assert_clear(done, 1, str(output / "sub-001"), *words)
    assert_whole(output)
    assert_mended(run(command(*given)), output, undisturbed)


@pytest.mark.slow
def test_a_page_that_cannot_be_written_costs_no_numbers(
    bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    in_its_place = output / "sub-001.html"
    (in_its_place / "folder").mkdir(parents=True)
    given = arguments(bids, output, coarse_head, "report")
    done = run(command(*given))
    assert_clear(done, 1, "sub-001 FAILED: report: ", str(in_its_place), "1 failed (sub-001)")
    assert_whole(output)
    manifest, expected = (Manifest.read(folder, "001") for folder in (output, undisturbed))
    assert [(step.step, step.exit_code) for step in manifest.failed] == [("report", 73)]
    assert set(manifest.outputs) == set(expected.outputs)
    assert manifest.scans[0].page == ""
    shutil.rmtree(in_its_place)
    again = run(command(*given))
    assert_clear(again, 0, "sub-001 tacs: done")
    assert Manifest.read(output, "001").scans[0].page == "sub-001.html" and in_its_place.is_file()
    found = outputs(output)
    differing = {name for name, content in outputs(undisturbed).items() if found.get(name) != content}
    assert {name for name in differing if not name.endswith("_manifest.json")} == set()


# Work folder


@pytest.fixture
def synthseg(tmp_path: Path, coarse_with_mr: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FreeSurfer with a stand-in for mri_synthseg, which needs the work folder."""
    program = tmp_path / "freesurfer" / "bin" / "mri_synthseg"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\n{(ROOT / 'tests' / 'fake_mri_synthseg.py').read_text()}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    answer = only(coarse_with_mr / "derivatives" / "synthseg" / "sub-001", "*seg-synthsegparc_dseg.nii.gz")
    monkeypatch.setenv("FAKE_SYNTHSEG_ANSWER", str(answer))
    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    return program


@pytest.fixture
def unsegmented(coarse_with_mr: Path, tmp_path: Path) -> Path:
    """The participant without a ready MR segmentation."""
    raw = tmp_path / "raw"
    shutil.copytree(coarse_with_mr, raw, ignore=shutil.ignore_patterns("synthseg"))
    return raw


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_work_folder_on_another_file_system_full_or_not(
    unsegmented: Path, synthseg: Path, tmp_path: Path
) -> None:
    words = ("participant", "--skip-bids-validation", "--mri-synthseg", synthseg, "--device", "cpu")
    steps = ("--nprocs", "1", "--steps", "segment", "normalise")
    expected = tmp_path / "expected"
    assert run(command(unsegmented, expected, *words, *steps)).returncode == 0
    output = tmp_path / "out"
    with disc(tmp_path / "work", "size=8k") as work:
        given = (unsegmented, output, *words, *steps, "--work-dir", work)
        done = run(command(*given))
        assert_clear(done, 74, str(work), "No space left on device", "segment synthsegparc")
        assert_whole(output)
        assert not list(work.glob("hedypet-*"))
        remount(work, "size=500m")
        done = run(command(*given))
        assert_clear(done, 0, "segment total: done")
        assert_whole(output)
        # The sidecar of what a program made tells how long that took.
        timed = [name for name in outputs(expected) if name.endswith("seg-synthsegparc_dseg.json")]
        assert len(timed) == 1
        assert_equal(output, expected, leaving_out=timed)
        assert not list(work.glob("hedypet-*"))


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_work_folder_without_room_for_compiled_code(
    bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with disc(tmp_path / "work", "size=16k") as work:
        output = tmp_path / "out"
        done = run(command(*arguments(bids, output, coarse_head, "--work-dir", work)))
        assert_clear(done, 74, str(work), "No space left on device", "--work-dir")
        assert_whole(output)
        remount(work, "size=100m")
        done = run(command(*arguments(bids, output, coarse_head, "--work-dir", work)))
        assert_mended(done, output, undisturbed)


@pytest.mark.slow
def test_a_work_folder_that_cannot_be_written(
    bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with disc(tmp_path / "work", "ro") as work:
        done = run(command(*arguments(bids, output, coarse_head, "--work-dir", work / "w")))
        assert_clear(done, 73, str(work / "w"), "Read-only file system", "--work-dir")
        # Made by an earlier run, it looks usable.
        remount(work, "rw")
        for name in ("numba", "matplotlib"):
            (work / "w" / name).mkdir(parents=True)
        remount(work, "ro")
        done = run(command(*arguments(bids, output, coarse_head, "--work-dir", work / "w")))
        assert done.returncode in (0, 73), done.stderr
        assert_clear(done, done.returncode, *((str(work / "w"), "--work-dir") if done.returncode else ()))
    assert_mended(run(command(*arguments(bids, output, coarse_head))), output, undisturbed)


# Users


@pytest.fixture
def shared(bids: Path, coarse_head: Path) -> Iterator[Path]:
    """A folder that other users can enter, with the dataset and the settings in it."""
    with open_folder() as folder:
        shutil.copytree(bids, folder / "bids", copy_function=shutil.copy2)
        shutil.copy(coarse_head, folder / "settings.toml")
        (folder / "home").mkdir(mode=0o755)
        yield folder


def everything(folder: Path, *more: str | Path) -> list[str]:
    """The command line for a shared folder."""
    out = folder / "open" / "out"
    return command(*arguments(folder / "bids", out, folder / "settings.toml", *more))


def assert_same_results(output: Path, expected: Path) -> None:
    """As :func:`assert_equal` for a copy of the dataset: it has another path, which one file tells."""
    wanted, found = outputs(expected), outputs(output)
    assert found.keys() == wanted.keys()
    differing = [name for name in found if found[name] != wanted[name]]
    assert differing in ([], ["dataset_description.json"])


@pytest.mark.slow
def test_a_user_without_name_and_home(shared: Path, undisturbed: Path) -> None:
    (shared / "open").mkdir(mode=0o777)
    (shared / "open").chmod(0o777)
    done = run(as_somebody(everything(shared)), without=("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME"))
    assert_clear(done, 0)
    output = shared / "open" / "out"
    assert_whole(output)
    assert_same_results(output, undisturbed)
    assert {path.stat().st_uid for path in output.rglob("*")} == {SOMEBODY}


@pytest.mark.exhaustive
def test_an_output_folder_of_another_user(shared: Path, undisturbed: Path) -> None:
    closed = shared / "open"
    closed.mkdir(mode=0o755)
    done = run(as_somebody(everything(shared)), HOME=str(shared / "home"))
    assert_clear(done, 73, str(closed / "out"), "Permission denied")
    assert not list(closed.iterdir())
    # One that he may not even look into.
    (closed / "out").mkdir(mode=0o700)
    (closed / "out" / "dataset_description.json").touch()
    done = run(as_somebody(everything(shared)), HOME=str(shared / "home"))
    assert_clear(done, 73, str(closed / "out"), "Permission denied")
    shutil.rmtree(closed / "out")
    # Begun by one user, gone on with by another, who may not write all of it.
    assert run(everything(shared, "--steps", "segment"), umask=0o022).returncode == 0
    done = run(as_somebody(everything(shared)), HOME=str(shared / "home"))
    assert_clear(done, 73, str(closed / "out"), "Permission denied")
    assert_whole(closed / "out")
    for path in (closed, *closed.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    done = run(as_somebody(everything(shared)), HOME=str(shared / "home"))
    assert_clear(done, 0, "sub-001 segment total: done")
    assert_whole(closed / "out")
    assert_same_results(closed / "out", undisturbed)


def test_a_gpu_that_another_user_has_used() -> None:
    held = "from pathlib import Path; import sys; from hedypet_bids.tools.gpu import reserved\n"
    held += "with reserved('gpu:0', Path(sys.argv[1])) as gpu: print(len(gpu.handles))"
    with open_folder() as folder:
        # As /tmp is: files of others can neither be written nor removed.
        folder.chmod(0o1777)
        assert run([sys.executable, "-c", held, str(folder)], umask=0o022).stdout == "1\n"
        done = run(as_somebody([sys.executable, "-c", held, str(folder)]))
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("sub-001/ses-quadra/ct/*rec-br38f_ct.nii.gz", marks=pytest.mark.exhaustive),
        pytest.param("sub-001/ses-quadra/pet/*rec-acdynPSF_pet.nii.gz", marks=pytest.mark.exhaustive),
        "sub-001/ses-quadra/pet/*rec-acdynPSF_pet.json",
        pytest.param("sub-001/ses-quadra/pet", marks=pytest.mark.exhaustive),
        "derivatives/totalsegmentator/sub-001/ses-quadra/*/*seg-total_dseg.nii.gz",
        pytest.param("participants.tsv", marks=pytest.mark.exhaustive),
        pytest.param("", marks=pytest.mark.exhaustive),
    ],
)
def test_an_input_that_may_not_be_read(secret: str, shared: Path, undisturbed: Path) -> None:
    (shared / "open").mkdir()
    (shared / "open").chmod(0o777)
    path = next((shared / "bids").glob(secret)) if secret else shared / "bids"
    mode = path.stat().st_mode
    path.chmod(0)
    done = run(as_somebody(everything(shared)), HOME=str(shared / "home"))
    assert done.returncode in (1, 65, 66), done.stderr
    assert_clear(done, done.returncode, path.name, "Permission denied")
    output = shared / "open" / "out"
    assert_whole(output)
    if "sub-001" in secret:
        # It is not the other participant's.
        assert not list(output.glob("sub-002/log/*/crash*")) and Manifest.read(output, "002").outputs
        assert done.returncode == 1
    path.chmod(mode)
    done = run(as_somebody(everything(shared)), HOME=str(shared / "home"))
    assert_clear(done, 0)
    assert_same_results(output, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o077, pytest.param(0o002, marks=pytest.mark.exhaustive)])
def test_files_follow_the_umask(
    umask: int, bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = run(command(*arguments(bids, output, coarse_head)), umask=umask)
    assert_mended(done, output, undisturbed)
    for path in output.rglob("*"):
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


# Home, network and clock


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_home_that_is_read_only(bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with disc(tmp_path / "home", "ro") as home:
        # Two workers: Dask looks for its configuration in the home folder.
        words = command(*arguments(bids, output, coarse_head, "--nprocs", "2"))
        done = run(words, HOME=str(home), without=("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TOTALSEG_HOME_DIR"))
        assert_mended(done, output, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nprocs", "loopback"), [("1", False), pytest.param("2", True, marks=pytest.mark.exhaustive)]
)
def test_no_network(
    nprocs: str, loopback: bool, bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = command(*arguments(bids, output, coarse_head, "--nprocs", nprocs))
    assert_mended(run(without_network(words, loopback=loopback)), output, undisturbed)


@pytest.mark.slow
def test_workers_without_a_loopback_device(
    bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = command(*arguments(bids, output, coarse_head, "--nprocs", "2"))
    began = time.monotonic()
    done = run(without_network(words, loopback=False))
    assert_clear(done, 75, "loopback", "--nprocs 1")
    assert time.monotonic() - began < 30.0, "Dask alone tries for a minute"
    assert_mended(run(words), output, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("jump", ["-1000d", pytest.param("+1000d", marks=pytest.mark.exhaustive)])
def test_a_clock_that_jumps_in_a_run(
    jump: str, bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output, now = tmp_path / "out", tmp_path / "now"
    given = arguments(bids, output, coarse_head)
    variables = clock("+0", now)
    change = f"echo {jump} > {shlex.quote(str(now))}"
    words = [sys.executable, "-c", environment.DISTURBED, "resample bodystat", change, *map(str, given)]
    done = run(words, **variables)
    assert_mended(done, output, undisturbed)
    log = only(output, "sub-001/log/*/hedypet.log").read_text()
    years = [int(year) for year in re.findall(r"^(20\d\d)-", log, re.MULTILINE)]
    assert abs(years[-1] - years[0]) >= 2, "the clock did not jump"
    steps = pd.read_csv(only(output, "sub-001/log/*/steps.tsv"), sep="\t")
    assert steps["seconds"].between(0, 600).all()
    again = run(command(*given))
    assert_clear(again, 0)
    assert steps_that_ran(again.stderr) == []


@pytest.mark.exhaustive
def test_times_of_files_are_compared_not_ordered(
    bids: Path, coarse_head: Path, undisturbed: Path, tmp_path: Path
) -> None:
    raw, output = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(bids, raw)
    future = time.time() + 1e8
    for path in raw.rglob("*.nii.gz"):
        os.utime(path, (future, future))
    given = arguments(raw, output, coarse_head)
    assert_clear(run(command(*given)), 0)
    assert_same_results(output, undisturbed)
    assert steps_that_ran(run(command(*given)).stderr) == []
    changed = only(raw / "sub-002", "*rec-acstatPSF_pet.nii.gz")
    os.utime(changed, (1e9, 1e9))
    again = run(command(*given)).stderr
    assert "sub-002 resample bodystat: ran" in again and "sub-001 resample bodystat: done" in again
