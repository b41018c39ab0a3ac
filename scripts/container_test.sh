#!/usr/bin/env bash
# Build the Dockerfile without a Docker engine and run the image the way docker and singularity would.
#   container_test.sh [--definition | --check] [FOLDER]
#     --definition   build Singularity.def instead (converted by spython)
#     --check        only say whether this machine can do it: exit status 0, else 75 and the reason
#     FOLDER         scratch folder of 14 GB, emptied in the end (default: a new one in TMPDIR)
# Exit status 75: an image cannot be built, for which the mirrors of packages may be the reason.
# Needs root on Debian 12 and: apt-get install buildah podman runc debootstrap bubblewrap python3-pip
# KEEP=1 leaves image and outputs in FOLDER; the base image is used again from there.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly user=1234:1234
# Where images, layers and the packages that pip loads have room.
readonly needed_gb=14

# Why this machine cannot build and run images; nothing when it can.
obstacle() { # obstacle FOLDER
  local program free_gb
  [[ $(id -u) == 0 ]] || { echo "only root can mount and make users"; return; }
  grep -qx 'VERSION_ID="12"' "${OS_RELEASE:-/etc/os-release}" 2>/dev/null || { echo "it is not Debian 12"; return; }
  for program in buildah podman runc debootstrap bwrap python3; do
    command -v "$program" >/dev/null || { echo "$program is not installed"; return; }
  done
  free_gb=$(df --output=avail --block-size=1G "$1" | tail -n 1 | tr -d ' ')
  ((free_gb >= needed_gb)) || { echo "$1 has $free_gb GB free of the $needed_gb GB needed"; return; }
  mkdir "$1"/{lower,upper,work,merged}
  if mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/merged" 2>/dev/null; then
    umount "$1/merged"
  else
    echo "no overlay can be mounted in $1"
  fi
}

if [[ ${1-} == --check ]]; then
  folder=$(mktemp -d "${2:-${TMPDIR:-/tmp}}/hedypet-check-XXXXXX")
  trap 'rm -rf "$folder"' EXIT
  reason=$(obstacle "$folder")
  [[ -z $reason ]] && exit
  echo "container_test cannot run here: $reason." >&2
  exit 75
fi

recipe=Dockerfile
if [[ ${1-} == --definition ]]; then recipe=Singularity.def; shift; fi
scratch=$(realpath "${1:-$(mktemp -d "${TMPDIR:-/tmp}/hedypet-container-XXXXXX")}")
readonly recipe scratch
readonly store=(--root "$scratch/root" --runroot "$scratch/runroot" --storage-driver overlay)
export CONTAINERS_CONF=$scratch/containers.conf

say() { printf '%s %s\n' "$(date +%T)" "$*"; }
fail() { echo "container_test: $*" >&2; exit 1; }
cannot_build() { echo "container_test: $*" >&2; exit 75; }

clean() {
  [[ -n ${KEEP-} ]] && return
  podman "${store[@]}" image unmount --all >/dev/null 2>&1 || true
  buildah "${store[@]}" rm --all >/dev/null 2>&1 || true
  podman "${store[@]}" rmi --all --force >/dev/null 2>&1 || true
  umount "$scratch/root/overlay" 2>/dev/null || true
  rm -rf --one-file-system "$scratch"
}
trap clean EXIT

# The machine's way to its package index (certificates, configuration, local wheels) is mounted while building,
# so that neither the recipe nor the image knows of it.
pip_mounts() {
  python3 - "$scratch/pip.conf" <<'PY'
import ast, pathlib, re, subprocess, sys
listed = subprocess.run(["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
settings = dict(re.findall(r"^[^=]*?([^.=]+)=(.*)$", listed.stdout, re.M))
settings = {name: ast.literal_eval(value) for name, value in settings.items()}
lines = [f"{name} = {value}" for name, value in settings.items()]
pathlib.Path(sys.argv[1]).write_text("\n".join(["[global]", *lines, ""]))
print(f"{sys.argv[1]}:/etc/pip.conf:ro")
words = {word.removeprefix("file://") for value in settings.values() for word in value.split()}
paths = {path for path in words if path.startswith("/") and pathlib.Path(path).exists()}
# A local index is mounted with what its pages point to beside it.
paths = {path.removesuffix("/simple") for path in paths}
print(*(f"{path}:{path}:ro" for path in sorted(paths)), sep="\n")
PY
}

make_base() {
  podman "${store[@]}" image exists localhost/base && return
  scripts/base_image.sh "$scratch/base" || cannot_build "there is no base image"
  tar -C "$scratch/base" -c . | podman "${store[@]}" import - localhost/base:latest >/dev/null 2>&1
  rm -rf "$scratch/base"
}

# Once: the test must not mind a commit that is made while it builds.
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
readonly revision

build() { # build FILE
  local mounts=()
  while read -r mount; do mounts+=(-v "$mount"); done < <(pip_mounts)
  buildah "${store[@]}" bud --isolation chroot --layers "${mounts[@]}" --file "$1" --tag localhost/hedypet \
    --build-arg BASE_IMAGE=localhost/base --build-arg FREESURFER_IMAGE=localhost/base --build-arg TORCH=cpu \
    --build-arg WITH_WEIGHTS=0 --build-arg WITH_SYNTHSEG=0 --build-arg VERSION="$(<version)" \
    --build-arg REVISION="$revision" . >"$scratch/build.log" 2>&1 ||
    { tail -n 30 "$scratch/build.log" >&2; cannot_build "the image cannot be built (the whole log: build.log of the folder, with KEEP=1)"; }
}

inspect() { podman "${store[@]}" image inspect localhost/hedypet --format "$1"; }

# As strict as docker gets: nothing can be written but the volumes, nobody is that user, there is no network.
in_podman() { # in_podman [OPTION...] localhost/hedypet [ARGUMENT...]
  podman "${store[@]}" run --rm --read-only --read-only-tmpfs=false --user "$user" --network none \
    --cap-drop=all --security-opt no-new-privileges --shm-size 1g "$@"
}

# As singularity exec --cleanenv --containall --no-home: no entry point, only the image's own variables, an empty /tmp.
in_bubblewrap() { # in_bubblewrap [OPTION...] COMMAND...
  local variables=() variable
  while read -r variable; do variables+=(--setenv "${variable%%=*}" "${variable#*=}"); done \
    < <(inspect '{{range .Config.Env}}{{println .}}{{end}}' | grep '=')
  bwrap --unshare-all --die-with-parent --uid "${user%:*}" --gid "${user#*:}" --clearenv "${variables[@]}" \
    --ro-bind "$root_fs" / --proc /proc --dev /dev --tmpfs /tmp "$@"
}

check_image() {
  [[ $(inspect '{{json .Config.Entrypoint}}') == '["/run.py"]' ]] || fail "the entry point is not /run.py"
  check_root_fs
}

check_labels() {
  local name expected
  for name in version revision; do
    if [[ $name == version ]]; then expected=$(<version); else expected=$revision; fi
    [[ $(inspect "{{index .Config.Labels \"org.opencontainers.image.$name\"}}") == "$expected" ]] ||
      fail "the label with the $name is missing"
  done
}

check_root_fs() {
  [[ $(<"$root_fs/version") == "$(<version)" ]] || fail "/version is not that of the project"
  local left
  left=$(find "$root_fs/root" "$root_fs/tmp" "$root_fs/locks" "$root_fs/src" -type f -newer "$CONTAINERS_CONF" 2>/dev/null || true)
  [[ -z $left ]] || fail "the build left files behind: $left"
  # Another user must be able to read all and run what can be run.
  left=$(find "$root_fs/opt" "$root_fs/run.py" ! -type l ! -perm -o=r -print -quit)
  [[ -z $left ]] || fail "only root can read $left"
}

check_help() {
  [[ $(in_podman localhost/hedypet --version) == "hedypet $(<version)" ]] || fail "--version"
  in_podman localhost/hedypet --help | grep -q '^usage: hedypet ' || fail "--help"
  in_podman localhost/hedypet --bids-exec-spec | python3 -m json.tool >/dev/null || fail "--bids-exec-spec"
  in_podman --entrypoint hedypet-weights localhost/hedypet list | grep -q '^481 ' || fail "hedypet-weights list"
}

make_input() {
  rm -rf "$scratch/run"
  mkdir -p "$scratch"/run/{in,out,work,out-exec,work-exec}
  # bubblewrap shows root's files as the user's own.
  chown "$user" "$scratch"/run/{in,out,work}
  in_podman --entrypoint hedypet-phantom -v "$scratch/run/in:/out" localhost/hedypet \
    /out/bids --participants 2 --size tiny --seed 1
  in_podman --entrypoint python -e PYTHONPATH=/tests -v "$PWD/tests:/tests:ro" -v "$scratch/run/in:/out" \
    localhost/hedypet -c 'import pathlib, toy_weights; toy_weights.write_weights(pathlib.Path("/out/weights"))'
  # What is not ready has to be made: TotalSegmentator runs on the second participant.
  rm -r "$scratch/run/in/bids/derivatives/totalsegmentator/sub-002"
}

run_levels() {
  local options=(-v "$scratch/run/in/bids:/data:ro" -v "$scratch/run/out:/out" -v "$scratch/run/work:/work"
    -v "$scratch/run/in/weights:/opt/totalsegmentator:ro" -e TOTALSEG_LICENSE=aca_00000000000000)
  in_podman "${options[@]}" localhost/hedypet /data /out participant --totalseg-fast --work-dir /work
  in_podman "${options[@]}" localhost/hedypet /data /out group --work-dir /work
}

check_output() { # check_output OUT WORK LABEL...
  local label
  for label in "${@:3}"; do [[ -s $1/sub-$label.html ]] || fail "there is no report of $label"; done
  [[ -s $1/readouts/means.parquet && -s $1/group.html ]] || fail "there are no group tables"
  [[ -d $2/numba && -d $2/matplotlib ]] || fail "the caches are not in the work folder"
}

check_totalsegmentator() {
  local task sidecar
  for task in total tissue body; do
    sidecar=$(find "$scratch/run/out/sub-002" -name "*_seg-${task}_dseg.json" -path '*/anat/*' ! -name '*space*')
    grep -q '"Device": "cpu"' "$sidecar" || fail "TotalSegmentator did not make $task of 002"
  done
}

run_bubblewrap() {
  local options=(--ro-bind "$scratch/run/in/bids" /data --bind "$scratch/run/out-exec" /out
    --bind "$scratch/run/work-exec" /work)
  [[ $(in_bubblewrap hedypet --version) == "hedypet $(<version)" ]] || fail "exec hedypet --version"
  [[ $(in_bubblewrap /run.py --version) == "hedypet $(<version)" ]] || fail "exec /run.py --version"
  in_bubblewrap "${options[@]}" hedypet /data /out participant --participant-label 001 --work-dir /work
  in_bubblewrap "${options[@]}" hedypet /data /out group --work-dir /work
}

# The files of FreeSurfer that the recipe takes, empty but for a program that imports what SynthSeg needs.
make_freesurfer() {
  local folder=$scratch/freesurfer/usr/local/freesurfer
  mkdir -p "$folder"/{python/scripts,models}
  touch "$folder/FreeSurferColorLUT.txt" "$folder/models/synthseg_2.0.h5"
  echo 'import nibabel, scipy, surfa, tensorflow; print("tensorflow", tensorflow.__version__)' \
    >"$folder/python/scripts/mri_synthseg"
  tar -C "$scratch/freesurfer" -c . | podman "${store[@]}" import - localhost/freesurfer:latest >/dev/null 2>&1
}

# spython takes PYTHONNOUSERSITE for a user, and knows no %arguments. The CPU build of torch comes by pip's own configuration.
convert_definition() {
  "${SPYTHON:-.venv/bin/spython}" recipe Singularity.def |
    sed -e 's/^PYTHONNOUSERSITE/ENV &/' -e 's/{{ TORCH }}/cpu/' -e 's/{{ WITH_WEIGHTS }}/0/' -e '/^HEALTHCHECK/d' \
      -e 's/PIP_EXTRA_INDEX_URL={{ PIP_EXTRA_INDEX_URL }} //' -e "s/{{ VERSION }}/$(<version)/" \
      -e "s/{{ REVISION }}/$revision/" -e 's/{{ SOURCE }}/unknown/' \
      -e 's|^FROM freesurfer/[^ ]*|FROM localhost/freesurfer|' -e 's|^FROM python:[^ ]*|FROM localhost/base|' \
      >"$scratch/Singularity.Dockerfile"
}

section() { awk -v name="%$1" '/^%/ { on = $1 == name; next } on' Singularity.def; }

# spython's recipe does not carry %runscript and %test as they are: they are run here.
check_sections() {
  local name
  for name in runscript test; do section "$name" >"$scratch/$name.sh"; done
  [[ $(in_bubblewrap --ro-bind "$scratch/runscript.sh" /tmp/script /bin/sh /tmp/script --version) == "hedypet $(<version)" ]] ||
    fail "%runscript"
  in_bubblewrap --ro-bind "$scratch/test.sh" /tmp/script /bin/sh /tmp/script >/dev/null || fail "%test"
  in_bubblewrap mri_synthseg >/dev/null 2>&1 && fail "mri_synthseg is on PATH, where its home folder cannot be told"
  in_bubblewrap /opt/freesurfer/bin/mri_synthseg | grep '^tensorflow 2.13' || fail "mri_synthseg"
}

show_layers() {
  podman "${store[@]}" history localhost/hedypet --human --format '{{.Size}}	{{.CreatedBy}}' --no-trunc |
    sed -e '/^0 B/d' -e 's|/bin/sh -c #(nop) ||' -e 's|/bin/sh -c ||' | cut -c1-110
}

test_dockerfile() {
  say "build"; began=$SECONDS; build Dockerfile; built_s=$((SECONDS - began))
  root_fs=$(podman "${store[@]}" image mount localhost/hedypet)
  say "image"; check_image; check_labels; check_help
  say "input"; make_input
  say "podman"; began=$SECONDS; run_levels; podman_s=$((SECONDS - began))
  check_output "$scratch/run/out" "$scratch/run/work" 001 002
  check_totalsegmentator
  say "bubblewrap"; began=$SECONDS; run_bubblewrap
  check_output "$scratch/run/out-exec" "$scratch/run/work-exec" 001
  show_layers
  echo "Dockerfile: built in $built_s s, $(($(inspect '{{.Size}}') / 1000000)) MB; both levels in podman" \
    "$podman_s s, in bubblewrap $((SECONDS - began)) s; all $SECONDS s"
}

test_definition() {
  say "build"; began=$SECONDS
  make_freesurfer
  convert_definition
  build "$scratch/Singularity.Dockerfile"
  echo "Singularity.def: built in $((SECONDS - began)) s, $(($(inspect '{{.Size}}') / 1000000)) MB"
  root_fs=$(podman "${store[@]}" image mount localhost/hedypet)
  say "image"; check_root_fs; check_labels; check_sections
}

mkdir -p "$scratch"
printf '[containers]\ndefault_ulimits = ["nofile=10000:10000", "nproc=10000:10000"]\n[engine]\nruntime = "runc"\n' \
  >"$CONTAINERS_CONF"
say "base image"; make_base
if [[ $recipe == Dockerfile ]]; then test_dockerfile; else test_definition; fi
say "container test passed"
