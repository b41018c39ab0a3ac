"""Dockerfile, Singularity.def, lock files and platform descriptors fit the package and each other.

That the image is built and runs is shown by scripts/container_test.sh.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hedypet_bids.cli.main import parse
from hedypet_bids.tools.synthseg import DEVICE_VARIABLE
from hedypet_bids.tools.totalsegmentator import MODELS, models_of_task

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "deploy" / "locks"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def arguments_of(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def defaults() -> dict[str, str]:
    """Build arguments of the Dockerfile that have a default."""
    return dict(text.split("=", 1) for text in arguments_of("ARG") if "=" in text)


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Package -> version and number of hashes in a lock file."""
    found: dict[str, tuple[str, int]] = {}
    for entry in re.split(r"\n(?=\S)", (LOCKS / f"{name}.txt").read_text()):
        if match := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", entry):
            found[canonicalize_name(match[1])] = (
                match[2],
                len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry)),
            )
    return found


def constraints() -> dict[str, str]:
    pairs = (line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def stages() -> Any:
    """Singularity.def as spython reads it, by stage."""
    parsers = pytest.importorskip(
        "spython.main.parse.parsers", reason="needs the package spython (extra dev)"
    )
    return parsers.SingularityParser(str(ROOT / "Singularity.def")).parse()


# Dockerfile


def test_the_image_starts_the_bids_app_and_needs_no_home_folder() -> None:
    assert arguments_of("ENTRYPOINT") == ['["/run.py"]']
    assert defaults()["BASE_IMAGE"] == "python:3.11-slim-bookworm"
    assert (defaults()["WITH_WEIGHTS"], defaults()["WITH_SYNTHSEG"], defaults()["TORCH"]) == (
        "1",
        "1",
        "cuda",
    )
    text = (ROOT / "Dockerfile").read_text()
    assert "/root" not in text
    assert re.findall(r"\bHOME=", text) == []
    assert "USER" not in [word for word, _ in instructions()]


def test_pip_takes_nothing_without_a_hash() -> None:
    installs = [command for command in arguments_of("RUN") if " pip install" in command]
    assert len(installs) == 5
    for command in installs:
        assert "--require-hashes" in command or "--no-deps --no-index" in command, command


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    copied = [rest.split()[:-1] for rest in arguments_of("COPY") if not rest.startswith("--from=")]
    sources = [
        name.replace("${TORCH}", kind) for names in copied for name in names for kind in ("cuda", "cpu")
    ]
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    kept = [line[1:] for line in ignored if line.startswith("!")]
    needed = [*sources, *PROJECT["project"]["license-files"], PROJECT["project"]["readme"], "hedypet_bids"]
    needed += PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for name in sorted({*needed} - {"."}):
        assert (ROOT / name).exists(), name
        assert any(Path(name).is_relative_to(path) for path in kept if path != "deploy"), name


def test_all_open_models_are_fetched_and_the_licensed_one_has_its_mount_point(stages: Any) -> None:
    (tissue,) = models_of_task("tissue")
    expected = sorted(model.number for model in MODELS if model != tissue)
    for text in ("\n".join(arguments_of("RUN")), "\n".join(stages["final"].install)):
        (numbers,) = re.findall(r"weights fetch --weights /opt/totalsegmentator ([\d ]+)", text)
        assert sorted(map(int, numbers.split())) == expected
        assert f"/opt/totalsegmentator/{tissue.folder}" in text


def test_the_image_fetches_weights_with_the_few_modules_that_it_takes(tmp_path: Path) -> None:
    copied = [rest.split() for rest in arguments_of("COPY") if "/src/hedypet_bids/" in rest]
    for *sources, target in copied:
        folder = tmp_path / target.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            shutil.copy(ROOT / source, folder)
    (tmp_path / "src" / "version").write_text("0\n")
    command = [sys.executable, "-m", "hedypet_bids.cli.weights", "check", "--weights", tmp_path, "297"]
    found = subprocess.run(
        command,
        # Nothing of the checkout: only what the image has by then.
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "src"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, "297" in found.stdout) == (66, True), found.stderr


def docker_labels() -> dict[str, str]:
    return dict(re.findall(r'(org\.opencontainers\.image\.\w+)="([^"]*)"', " ".join(arguments_of("LABEL"))))


def test_labels_are_those_of_oci() -> None:
    labels = {name.rpartition(".")[2]: value for name, value in docker_labels().items()}
    assert labels["title"] == PROJECT["project"]["name"]
    assert labels["licenses"] == PROJECT["project"]["license"]
    assert (labels["revision"], labels["version"]) == ("${REVISION}", "${VERSION}")


# Singularity.def


def test_the_definition_starts_from_the_same_images(stages: Any) -> None:
    assert stages["final"].fromHeader == defaults()["BASE_IMAGE"]
    assert stages["freesurfer"].fromHeader == defaults()["FREESURFER_IMAGE"]


def test_the_definition_takes_the_same_steps(stages: Any) -> None:
    def steps(commands: list[str]) -> set[str]:
        found = re.findall(r"/opt/\w+/bin/python -m pip install [^&|\n]*", "\n".join(commands))
        found += re.findall(r"python3 -m venv \S+", "\n".join(commands))
        found += re.findall(r"PYTHONPATH=/src .* fetch .*", "\n".join(commands))
        return {re.sub(r"\$\{TORCH\}|\{\{ TORCH \}\}", "TORCH", step).strip() for step in found}

    docker, singularity = steps(arguments_of("RUN")), steps(stages["final"].install)
    # The one builds a wheel in a stage of its own, the other installs from the source.
    (wheel,) = docker - singularity
    (source,) = singularity - docker
    assert wheel.endswith("--no-deps --no-index /dist/*.whl")
    assert source.endswith("--no-deps --no-build-isolation /src")


def test_the_definition_has_the_same_environment(stages: Any) -> None:
    docker = dict(pair.split("=", 1) for pair in " ".join(arguments_of("ENV")).split())
    singularity = dict(pair.split("=", 1) for pair in stages["final"].environ)
    # What --nv does for Singularity.
    nvidia = {name for name in docker if name.startswith("NVIDIA_")}
    assert {name: value for name, value in docker.items() if name not in nvidia} == singularity
    # The TensorFlow of the image has no CUDA libraries.
    assert docker[DEVICE_VARIABLE] == "cpu"
    assert "nvidia" not in " ".join(locked("synthseg"))
    assert " --cpu " in (ROOT / "deploy" / "mri_synthseg.sh").read_text()
    assert docker["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert set(docker["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}


def test_the_definition_has_all_sections(stages: Any) -> None:
    final = stages["final"]
    assert final.cmd == 'exec /run.py "$@"'
    assert any("/run.py --version" in line for line in final.install if "/tests.sh" in line)
    text = (ROOT / "Singularity.def").read_text()
    assert "singularity run" in text.split("%help")[1]
    for source in (line.split()[0] for line in final.files):
        assert (ROOT / source).exists(), source


def definition_arguments() -> dict[str, str]:
    """The section %arguments: name -> default."""
    section = (ROOT / "Singularity.def").read_text().split("\n%arguments\n")[1].split("\n%")[0]
    return dict(line.strip().split("=", 1) for line in section.splitlines() if line.strip())


def test_the_definition_has_the_same_labels_and_arguments(stages: Any) -> None:
    labels = dict(line.split(" ", 1) for line in stages["final"].labels)
    filled_in = {name: re.sub(r"\{\{ (\w+) \}\}", r"${\1}", value) for name, value in labels.items()}
    assert filled_in == docker_labels()
    without_default = [text for text in arguments_of("ARG") if "=" not in text]
    docker = defaults() | dict.fromkeys(without_default, "")
    arguments = definition_arguments()
    assert arguments == {name: docker[name] for name in arguments}
    # Each is used, and all that is used has a default.
    body = re.sub(r"^\s*#.*$", "", (ROOT / "Singularity.def").read_text(), flags=re.M)
    assert set(re.findall(r"\{\{ (\w+) \}\}", body)) == arguments.keys()
    # What spython leaves standing the container test fills in.
    script = (ROOT / "scripts" / "container_test.sh").read_text()
    assert [name for name in arguments if f"s/{{{{ {name} }}}}/" not in script] == ["PIP_EXTRA_INDEX_URL"]
    assert "'s/PIP_EXTRA_INDEX_URL={{ PIP_EXTRA_INDEX_URL }} //'" in script


def test_the_other_index_reaches_the_packages_of_torch_only(stages: Any) -> None:
    (line,) = [line for line in stages["final"].install if "PIP_EXTRA_INDEX_URL" in line]
    assert line.startswith("PIP_EXTRA_INDEX_URL={{ PIP_EXTRA_INDEX_URL }} /opt/hedypet/bin/python -m pip")
    assert line.endswith("-r /locks/{{ TORCH }}.txt")
    (index,) = re.findall(
        r"^readonly torch_cpu_index=(\S+)$", (ROOT / "scripts" / "lock.sh").read_text(), re.M
    )
    for name in ("Singularity.def", "docs/container.md"):
        assert f"PIP_EXTRA_INDEX_URL={index}" in (ROOT / name).read_text("utf-8"), name


def test_no_command_of_the_definition_needs_the_line_before(stages: Any) -> None:
    for line in stages["final"].install:
        # Each runs on its own where the definition is converted: no blocks, continued lines or variables.
        assert not line.endswith("\\") and not re.match(
            r"(if|for|then|fi|done|cd|export)\b|\w+=\S*$", line
        ), line


# Lock files


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_every_dependency_is_locked_with_hashes(kind: str) -> None:
    packages = locked(kind)
    for text in PROJECT["project"]["dependencies"]:
        requirement = Requirement(text)
        version, _ = packages[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), (text, version)
    assert {name for name, (_, hashes) in packages.items() if not hashes} == set()
    # What is tested is what the image has.
    pinned = constraints()
    differing = {
        name: (version, pinned[name])
        for name, (version, _) in packages.items()
        if name in pinned and version.partition("+")[0] != pinned[name]
    }
    assert differing == {}, "run scripts/lock.sh"


def test_only_one_lock_brings_cuda() -> None:
    cuda, cpu = locked("cuda"), locked("cpu")
    assert "+" not in cuda["torch"][0] and cpu["torch"][0].endswith("+cpu")
    assert any(name.startswith("nvidia-") for name in cuda)
    assert not any(name.startswith(("nvidia-", "cuda-", "triton")) for name in cpu)
    only_cuda = {
        name for name in cuda.keys() - cpu.keys() if not name.startswith(("nvidia-", "cuda-", "triton"))
    }
    assert only_cuda == set() == cpu.keys() - cuda.keys()


def test_the_tools_of_the_build_are_locked() -> None:
    packages = locked("build")
    for text in PROJECT["build-system"]["requires"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(packages[canonicalize_name(requirement.name)][0])
    assert {"pip", "setuptools", "wheel"} <= packages.keys()
    assert all(hashes for _, hashes in packages.values())


@pytest.mark.parametrize("name", ["synthseg", "synthseg-build"])
def test_synthseg_is_locked_as_asked_for(name: str) -> None:
    packages = locked(name)
    for line in (LOCKS / f"{name}.in").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            assert requirement.specifier.contains(packages[canonicalize_name(requirement.name)][0]), line
    assert all(hashes for _, hashes in packages.values())


# Platforms


def test_babs_gives_arguments_that_hedypet_takes() -> None:
    content = yaml.safe_load((ROOT / "deploy" / "babs.yaml").read_text())
    arguments = content["bids_app_args"]
    selection = arguments.pop("$SUBJECT_SELECTION_FLAG")
    words = [word for flag, value in arguments.items() for word in (flag, *value.split())]
    given = [word.replace("$BABS_TMPDIR", "work") for word in words]
    options = parse(["bids", "out", "participant", *given, selection, "sub-001"])
    assert options.participant_labels == ("001",)
    assert (options.work_dir, options.nprocs, options.skip_bids_validation) == (Path("work"), 4, True)
    (version,) = content["zip_foldernames"].values()
    assert version == (ROOT / "version").read_text().strip().replace(".", "-")
    assert "--containall" in content["singularity_args"]
    # BABS 0.5 reads the dataset from the file, and gives a job to those participants only that have these.
    (dataset,) = content["input_datasets"].values()
    assert dataset["required_files"] == ["**/pet/*_pet.nii*"]
    assert (dataset["is_zipped"], dataset["path_in_babs"]) == (False, "inputs/data/BIDS")
    assert dataset["origin_url"]


@pytest.fixture
def brainlife(tmp_path: Path) -> Path:
    """A job's folder with main and a singularity that writes down how it was called."""
    if shutil.which("jq") is None:
        pytest.skip("needs jq")
    shutil.copy(ROOT / "deploy" / "brainlife" / "main", tmp_path)
    (tmp_path / "input" / "bids").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "singularity"
    fake.write_text(
        '#!/bin/bash\nprintf "%s\\0" "$@" >>calls\nprintf "\\n" >>calls\n'
        '[[ " $* " == *" group "* ]] && exit "${GROUP_CODE:-0}"\nexit "${PARTICIPANT_CODE:-0}"\n'
    )
    fake.chmod(0o755)
    return tmp_path


def run_main(folder: Path, configuration: dict[str, Any], **environment: str) -> tuple[int, list[list[str]]]:
    (folder / "config.json").write_text(json.dumps(configuration))
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["./main"], cwd=folder, env={**os.environ, **environment, "PATH": path}, check=False
    )
    calls = folder / "calls"
    lines = calls.read_text().splitlines() if calls.exists() else []
    return done.returncode, [line.split("\0")[:-1] for line in lines]


def test_brainlife_runs_both_levels_as_configured(brainlife: Path) -> None:
    configuration = json.loads((ROOT / "deploy" / "brainlife" / "config.json").read_text())
    configuration |= {"participant_label": "001 002", "totalseg_fast": True, "map_fwhm": 4}
    code, (participant, group) = run_main(brainlife, configuration, PBS_NUM_PPN="3")
    assert code == 0
    after = participant.index(configuration["image"]) + 1
    options = parse(participant[after:])
    assert (options.level, options.participant_labels, options.nprocs) == ("participant", ("001", "002"), 3)
    assert options.values == {"kinetics": {"map_fwhm_mm": 4.0}, "segment": {"totalseg_fast": True}}
    assert f"{brainlife}/input/bids:{options.bids_dir}:ro" in participant
    assert f"{brainlife}/output:{options.output_dir}" in participant
    assert parse(group[group.index(configuration["image"]) + 1 :]).level == "group"


def test_brainlife_makes_the_tables_and_keeps_the_exit_code_when_a_participant_fails(brainlife: Path) -> None:
    code, calls = run_main(brainlife, {"bids": "input/bids", "group": True}, PARTICIPANT_CODE="1")
    assert (code, len(calls)) == (1, 2)
    assert "--participant-label" not in calls[0]


@pytest.mark.parametrize(("participant", "expected"), [("0", 73), ("1", 1)])
def test_brainlife_tidies_up_when_the_group_fails(participant: str, expected: int, brainlife: Path) -> None:
    codes = {"PARTICIPANT_CODE": participant, "GROUP_CODE": "73"}
    code, calls = run_main(brainlife, {"bids": "input/bids", "group": True}, **codes)
    assert (code, len(calls)) == (expected, 2)
    assert not (brainlife / "work").exists() and (brainlife / "output").is_dir()


def test_brainlife_says_what_is_missing(brainlife: Path) -> None:
    assert run_main(brainlife, {"bids": "nowhere"}) == (66, [])


def test_the_release_builds_the_image_with_arguments_it_knows() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert jobs["image"]["needs"] == jobs["package"]["needs"] == "test"
    (build,) = [step for step in jobs["image"]["steps"] if "build-push-action" in step.get("uses", "")]
    given = dict(line.split("=", 1) for line in build["with"]["build-args"].splitlines())
    assert given.keys() == {"VERSION", "REVISION", "SOURCE", "WITH_SYNTHSEG"}
    assert given.keys() <= defaults().keys()
    # FreeSurfer's files would come without its licence.
    assert given["WITH_SYNTHSEG"] == "0"
    # Only a tag publishes.
    assert "ref_type == 'tag'" in build["with"]["push"]
    (publish,) = [step for step in jobs["package"]["steps"] if "pypi-publish" in step.get("uses", "")]
    assert "ref_type == 'tag'" in publish["if"]
    (tests,) = [step for step in jobs["test"]["steps"] if step.get("run") == ".ci/run"]
    assert (ROOT / tests["run"]).is_file()


# ---- whether the container test can run here

NEEDED_PROGRAMS = ("buildah", "podman", "runc", "debootstrap", "bwrap", "python3")
OBSTACLES = {
    "another user": ({"id": "echo 1000"}, "only root"),
    "another system": ({"release": 'VERSION_ID="13"'}, "it is not Debian 12"),
    "no podman": ({"podman": ""}, "podman is not installed"),
    "a full disc": ({"df": "echo Avail; echo '  3'"}, "3 GB free of the 14 GB needed"),
    "no overlay": ({"mount": "exit 32"}, "no overlay can be mounted"),
}


def check(folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """``container_test.sh --check`` on a machine that has everything but what is changed."""
    programs = folder / "bin"
    programs.mkdir()
    stand_ins = {"id": "echo 0", "df": "echo Avail; echo '  99'", "mount": "exit 0", "umount": "exit 0"}
    stand_ins |= dict.fromkeys(NEEDED_PROGRAMS, "exit 0") | changed
    release = folder / "os-release"
    release.write_text(stand_ins.pop("release", 'VERSION_ID="12"') + "\n")
    for name, words in stand_ins.items():
        if words:
            (programs / name).write_text(f"#!/bin/sh\n{words}\n")
            (programs / name).chmod(0o755)
    for name in ("bash", "mktemp", "dirname", "grep", "tail", "tr", "mkdir", "rm", "env"):
        (programs / name).symlink_to(str(shutil.which(name)))
    environment = {"PATH": str(programs), "OS_RELEASE": str(release), "TMPDIR": str(folder)}
    words = [str(programs / "bash"), str(ROOT / "scripts" / "container_test.sh"), "--check"]
    return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)


def test_a_machine_that_has_everything_can_run_the_container_test(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.glob("hedypet-check-*"))


@pytest.mark.parametrize(("changed", "reason"), OBSTACLES.values(), ids=OBSTACLES)
def test_what_keeps_the_container_test_from_running_is_named(
    changed: dict[str, str], reason: str, tmp_path: Path
) -> None:
    done = check(tmp_path, **changed)
    assert done.returncode == 75 and done.stderr.startswith("container_test cannot run here: ")
    assert reason in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("hedypet-check-*"))
