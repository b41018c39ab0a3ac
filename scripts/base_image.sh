#!/usr/bin/env bash
# Write a root file system with Debian 12 and its Python 3.11: base_image.sh FOLDER
# It stands in for python:3.11-slim-bookworm where no registry can be reached. Needs root and debootstrap.
set -euo pipefail
readonly root=${1:?usage: base_image.sh FOLDER}

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" >"$root.log" 2>&1 ||
  { tail "$root.log" >&2; exit 1; }
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
