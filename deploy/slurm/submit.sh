#!/usr/bin/env bash
# Submits hedypet for a whole dataset as three SLURM jobs that wait for each other. README.md explains them.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: submit.sh BIDS_DIR OUTPUT_DIR [hedypet's options]

Submits an array that segments (on GPUs), an array with everything else (without) and the group tables.
Prints "segment ID", "participant ID" and "group ID", and leaves the logs in OUTPUT_DIR/logs/slurm.

Environment
  HEDYPET_IMAGE              the container image, run by singularity
  HEDYPET                    or the whole command to run instead; words may be quoted
  HEDYPET_SEGMENT_SBATCH     options of sbatch for a segmentation task
                             (--gres=gpu:1 --cpus-per-task=4 --mem=48G --time=2:00:00)
  HEDYPET_PARTICIPANT_SBATCH options of sbatch for a task of everything else
                             (--cpus-per-task=4 --mem=16G --time=4:00:00)
  HEDYPET_GROUP_SBATCH       options of sbatch for the group level
                             (--cpus-per-task=2 --mem=8G --time=1:00:00)
  HEDYPET_AT_ONCE            most tasks of an array to run at once (all)
TEXT
}

# The exit codes are those of hedypet itself.
readonly USAGE_ERROR=2 NOTHING_SELECTED=18 MISSING_INPUT=66 OUTPUT_ERROR=73

# All but segment: a CPU task must not begin hours of segmentation that failed on a GPU.
readonly OTHER_STEPS=(register static resample normalise aorta tacs input_functions kinetics maps means quality report)

fail() { # CODE MESSAGE
  echo "submit.sh: $2" >&2
  exit "$1"
}

# Splits a variable into the words of an array; quotes group words, nothing is expanded.
words_of() { # ARRAY TEXT
  mapfile -t "$1" < <(xargs --no-run-if-empty printf '%s\n' <<<"$2")
  wait $! || fail $USAGE_ERROR "cannot be split into words, see above: $2"
}

# Of hedypet's options those that the group level takes as well: which models there are.
read_group_options() { # OPTIONS...
  local word keep=
  group_options=()
  for word; do
    case $word in
      --settings | --settings=* | --model | --model=*) keep=yes ;;
      -*) keep= ;;
    esac
    [[ -z $keep ]] || group_options+=("$word")
  done
}

# Sorts hedypet's options into `labels` and `options`, and refuses those that the jobs set themselves.
read_options() {
  validate=yes labels=() options=()
  while (($#)); do
    case $1 in
      --participant-label | --participant_label)
        shift
        while (($#)) && [[ $1 != -* ]]; do
          labels+=("${1#sub-}")
          shift
        done
        continue
        ;;
      --participant-label=* | --participant_label=*)
        local label=${1#*=}
        labels+=("${label#sub-}")
        ;;
      --skip-bids-validation | --skip_bids_validation) validate=no ;;
      --steps* | --nprocs* | --mem[-_]mb* | -w* | --work[-_]dir* | --clean[-_]workdir | --dask[-_]scheduler*)
        fail $USAGE_ERROR "$1 is set by the jobs themselves; leave it out. Resources are those of sbatch (--help)."
        ;;
      --dry-run | --dry_run) fail $USAGE_ERROR "run hedypet itself with --dry-run; nothing was submitted." ;;
      *) options+=("$1") ;;
    esac
    shift
  done
}

find_labels() {
  local folder label
  if ! ((${#labels[@]})); then
    for folder in "$bids"/sub-*/; do
      [[ -d $folder ]] && labels+=("$(basename "${folder#"$bids"/sub-}")")
    done
  fi
  ((${#labels[@]})) || fail $NOTHING_SELECTED "$bids has no participants (folders sub-*)."
  for label in "${labels[@]}"; do
    [[ -d $bids/sub-$label ]] || fail $NOTHING_SELECTED "--participant-label $label: there is no $bids/sub-$label."
  done
}

find_program() {
  if [[ -n ${HEDYPET-} ]]; then
    words_of program "$HEDYPET"
    return
  fi
  [[ -n ${HEDYPET_IMAGE-} ]] || fail $USAGE_ERROR "set HEDYPET_IMAGE to the container image (or HEDYPET to a command)."
  [[ -e $HEDYPET_IMAGE ]] || fail $MISSING_INPUT "HEDYPET_IMAGE: there is no $HEDYPET_IMAGE."
  program=(singularity exec --nv --cleanenv --bind "$bids:$bids:ro" --bind "$output:$output"
    "$(realpath "$HEDYPET_IMAGE")" hedypet)
}

# Once here instead of once a task. A dry run validates the dataset and tries the options.
validate_dataset() {
  local code=0
  "${program[@]}" "$bids" "$output" participant --dry-run --participant-label "${labels[@]}" "${options[@]}" \
    >"$logs/plan-$stamp.txt" 2>&1 || code=$?
  # 1: some participants cannot be processed; the others can, and the tasks tell of each.
  if ((code > 1)); then
    cat "$logs/plan-$stamp.txt" >&2
    fail $code "hedypet refuses (exit code $code, see above); nothing was submitted."
  fi
}

submitted=()
cancel_submitted() {
  ((${#submitted[@]} == 0)) || scancel "${submitted[@]}"
}

submit() { # NAME SBATCH_OPTIONS... -- COMMAND...
  local name=$1 settings=() id
  shift
  while [[ $1 != -- ]]; do
    settings+=("$1")
    shift
  done
  shift
  # --export: sites may have changed the default, and the tasks need PATH and what the user set for the image.
  id=$(sbatch --parsable --export=ALL --job-name="hedypet-$name" "${settings[@]}" "$here/task.sbatch" "$list" "$@") ||
    fail $? "sbatch refused the job $name (its message is above); jobs submitted before it were cancelled."
  submitted+=("${id%%;*}") # a federation answers ID;CLUSTER
  echo "$name ${id%%;*}"
}

submit_all() {
  local array="1-${#labels[@]}${HEDYPET_AT_ONCE:+%$HEDYPET_AT_ONCE}" segment participant group
  words_of segment "${HEDYPET_SEGMENT_SBATCH---gres=gpu:1 --cpus-per-task=4 --mem=48G --time=2:00:00}"
  words_of participant "${HEDYPET_PARTICIPANT_SBATCH---cpus-per-task=4 --mem=16G --time=4:00:00}"
  words_of group "${HEDYPET_GROUP_SBATCH---cpus-per-task=2 --mem=8G --time=1:00:00}"
  local level=("${program[@]}" "$bids" "$output")
  read_group_options "${options[@]}"

  trap cancel_submitted EXIT
  submit segment "${segment[@]}" --array="$array" --output="$logs/segment_%A_%a.log" -- \
    "${level[@]}" participant --skip-bids-validation "${options[@]}" --steps segment
  # afterany, not afterok or aftercorr: as in a run on one machine, what fails stops only what needs it.
  submit participant "${participant[@]}" --array="$array" --output="$logs/participant_%A_%a.log" \
    --dependency="afterany:${submitted[0]}" -- \
    "${level[@]}" participant --skip-bids-validation "${options[@]}" --steps "${OTHER_STEPS[@]}"
  submit group "${group[@]}" --output="$logs/group_%j.log" --dependency="afterany:${submitted[1]}" -- \
    "${level[@]}" group "${group_options[@]}"
  trap - EXIT
}

main() {
  if [[ ${1-} == -h || ${1-} == --help ]]; then
    usage
    return
  fi
  (($# >= 2)) || { usage >&2; exit $USAGE_ERROR; }
  [[ -d $1 ]] || fail $MISSING_INPUT "there is no dataset at $1."
  here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
  bids=$(realpath "$1")
  read_options "${@:3}"
  find_labels
  output=$(realpath --canonicalize-missing "$2")
  logs=$output/logs/slurm
  stamp=$(date +%Y%m%d-%H%M%S)-$$
  list=$logs/participants-$stamp.txt
  mkdir -p "$logs" || fail $OUTPUT_ERROR "$logs cannot be made."
  find_program
  [[ $validate == no ]] || validate_dataset
  printf '%s\n' "${labels[@]}" >"$list"
  submit_all
}

main "$@"
