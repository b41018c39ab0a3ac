#!/usr/bin/env bash
# Write deploy/locks/*.txt: the version and the hashes of every package of the image. Run it after make lock.
# Needs uv (pip install uv) and an index with the CPU build of torch, or FIND_LINKS=FOLDER with its wheel.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly torch_cpu_index=https://download.pytorch.org/whl/cpu
cpu_source=(--extra-index-url "$torch_cpu_index" --index-strategy unsafe-best-match)
[[ -z ${FIND_LINKS-} ]] || cpu_source=(--find-links "$FIND_LINKS")

compile() { # compile NAME INPUT [OPTION...]
  uv pip compile "$2" --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --custom-compile-command scripts/lock.sh --output-file "deploy/locks/$1.txt" "${@:3}"
  echo "deploy/locks/$1.txt: $(grep -c == "deploy/locks/$1.txt") packages"
}

compile cuda pyproject.toml --constraint constraints.txt
compile cpu pyproject.toml --constraint constraints.txt "${cpu_source[@]}"
compile build deploy/locks/build.in --constraint constraints.txt
compile synthseg deploy/locks/synthseg.in
compile synthseg-build deploy/locks/synthseg-build.in
