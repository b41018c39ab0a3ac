"""Stands in for FreeSurfer's mri_synthseg: its flags, files and exit codes, with the answer given in advance.

FAKE_SYNTHSEG_ANSWER is the label image to give; FAKE_SYNTHSEG_FAULT makes it fail in one way. It writes its
arguments to the file FAKE_SYNTHSEG_ARGUMENTS.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

SCORES = (
    "general white matter",
    "general grey matter",
    "general csf",
    "cerebellum",
    "brainstem",
    "thalamus",
    "putamen+pallidum",
    "hippocampus+amygdala",
)


def main() -> None:
    if not Path(os.environ.get("FREESURFER_HOME") or "unset").is_dir():
        sys.exit("ERROR: FREESURFER_HOME is not set")
    parser = argparse.ArgumentParser()
    for flag in ("--i", "--o", "--vol", "--qc"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--threads", type=int, default=1)
    for flag in ("--parc", "--robust", "--keepgeom", "--cpu"):
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args()
    if called := os.environ.get("FAKE_SYNTHSEG_ARGUMENTS"):
        Path(called).write_text(" ".join(sys.argv[1:]))
    fault = os.environ.get("FAKE_SYNTHSEG_FAULT", "")
    if fault == "crash":
        print("Traceback: cannot load the model", file=sys.stderr)
        sys.exit(1)
    if fault == "hang":
        time.sleep(600)
    if fault == "killed":
        os.kill(os.getpid(), 9)
    if fault == "disc full":
        sys.exit("OSError: [Errno 28] No space left on device")
    if not (given.parc and given.keepgeom):
        sys.exit("this stand-in only answers with parcels in the grid of the input")
    answer = nib.load(os.environ["FAKE_SYNTHSEG_ANSWER"])
    asked = nib.load(given.i)
    assert answer.shape == asked.shape and np.allclose(answer.affine, asked.affine, atol=1e-3)
    if fault == "other shape":
        nib.save(answer.slicer[1:], given.o)
    elif fault != "no result":
        shutil.copy(os.environ["FAKE_SYNTHSEG_ANSWER"], given.o)
    Path(given.vol).write_text("subject,total intracranial,left cerebral cortex\nt1w,1512345.5,250000.25\n")
    score = 0.4 if fault == "bad score" else 0.8
    values = ",".join(str(score + 0.01 * i) for i in range(len(SCORES)))
    Path(given.qc).write_text("subject," + ",".join(SCORES) + f"\nt1w,{values}\n")


main()
