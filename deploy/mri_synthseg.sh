#!/bin/sh
# FreeSurfer's mri_synthseg in the image: its own script, in the environment of SynthSeg.
# --cpu: TensorFlow's CUDA libraries are not in the image. HEDYPET_SYNTHSEG_DEVICE=cpu tells hedypet so.
export FREESURFER_HOME=/opt/freesurfer
exec /opt/synthseg/bin/python -E -s /opt/freesurfer/python/scripts/mri_synthseg --cpu "$@"
