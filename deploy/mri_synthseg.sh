#!/bin/sh
# FreeSurfer's mri_synthseg in the image: its own script, in the environment of SynthSeg.
export FREESURFER_HOME=/opt/freesurfer
exec /opt/synthseg/bin/python -E -s /opt/freesurfer/python/scripts/mri_synthseg "$@"
