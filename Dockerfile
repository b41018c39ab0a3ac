# hedypet as a BIDS App. How to build, run and test it: docs/container.md
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG FREESURFER_IMAGE=freesurfer/freesurfer:7.4.1
ARG WITH_WEIGHTS=1
ARG WITH_SYNTHSEG=1

FROM ${BASE_IMAGE} AS base

# Every package by its hash. torch's own wheels bring the CUDA libraries; TORCH=cpu takes the small build without.
FROM base AS packages
ARG TORCH=cuda
ARG PIP_EXTRA_INDEX_URL
COPY deploy/locks/build.txt deploy/locks/${TORCH}.txt /locks/
RUN python3 -m venv /opt/hedypet
RUN /opt/hedypet/bin/python -m pip install --no-cache-dir --require-hashes -r /locks/build.txt
# Some packages come as source only: they are built with the tools of build.txt, not with the newest.
RUN /opt/hedypet/bin/python -m pip install --no-cache-dir --require-hashes --no-build-isolation -r /locks/${TORCH}.txt

FROM packages AS package
COPY . /src
RUN /opt/hedypet/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist /src

# The open models of TotalSegmentator. The tissue model (481) may not be handed on: mount it over its empty folder.
# They are fetched before the rest of our own code comes in, so that the layer stays the same from release to release.
FROM base AS weights-0
RUN mkdir -p /opt/totalsegmentator/Dataset481_tissue_1559subj
FROM packages AS weights-1
RUN mkdir -p /opt/totalsegmentator/Dataset481_tissue_1559subj /src && echo 0 >/src/version
# What hedypet-weights consists of: it checks every archive by its hash and goes on where a download broke.
COPY hedypet_bids/__init__.py hedypet_bids/errors.py hedypet_bids/version.py /src/hedypet_bids/
COPY hedypet_bids/cli/__init__.py hedypet_bids/cli/console_streams.py hedypet_bids/cli/weights.py /src/hedypet_bids/cli/
COPY hedypet_bids/io/__init__.py hedypet_bids/io/atomic.py hedypet_bids/io/lock.py /src/hedypet_bids/io/
COPY hedypet_bids/tools/__init__.py hedypet_bids/tools/archives.py hedypet_bids/tools/totalsegmentator.py \
    hedypet_bids/tools/weights.py /src/hedypet_bids/tools/
RUN PYTHONPATH=/src /opt/hedypet/bin/python -m hedypet_bids.cli.weights fetch --weights /opt/totalsegmentator \
    291 292 293 294 295 297 298 299 300 597 598 850 851 852
RUN chmod -R a+rX /opt/totalsegmentator
FROM weights-${WITH_WEIGHTS} AS weights

# SynthSeg needs an older numpy and TensorFlow, so it lives in an environment of its own.
FROM ${FREESURFER_IMAGE} AS freesurfer
FROM base AS synthseg-0
RUN mkdir -p /opt/freesurfer /opt/synthseg
FROM base AS synthseg-1
# surfa comes as source only, in part in C.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev
COPY deploy/locks/synthseg-build.txt deploy/locks/synthseg.txt /locks/
RUN python3 -m venv /opt/synthseg
RUN /opt/synthseg/bin/python -m pip install --no-cache-dir --require-hashes -r /locks/synthseg-build.txt
RUN /opt/synthseg/bin/python -m pip install --no-cache-dir --require-hashes --no-build-isolation -r /locks/synthseg.txt
COPY --from=freesurfer /usr/local/freesurfer/FreeSurferColorLUT.txt /opt/freesurfer/
COPY --from=freesurfer /usr/local/freesurfer/python/scripts/mri_synthseg /opt/freesurfer/python/scripts/
COPY --from=freesurfer /usr/local/freesurfer/models/synthseg_* /opt/freesurfer/models/
COPY deploy/mri_synthseg.sh /opt/freesurfer/bin/mri_synthseg
RUN chmod -R a+rX /opt/freesurfer && chmod 755 /opt/freesurfer/bin/mri_synthseg
FROM synthseg-${WITH_SYNTHSEG} AS synthseg

FROM base AS final
# Largest and least often changed first: a new release of hedypet is a download of the last layers only.
COPY --from=weights /opt/totalsegmentator /opt/totalsegmentator
COPY --from=synthseg /opt/freesurfer /opt/freesurfer
COPY --from=synthseg /opt/synthseg /opt/synthseg
COPY --from=packages /opt/hedypet /opt/hedypet
# Copied, not mounted: older builders take a mounted wheel from their cache when it has changed.
COPY --from=package /dist /dist
RUN /opt/hedypet/bin/python -m pip install --no-cache-dir --no-deps --no-index /dist/*.whl && rm -r /dist
COPY run.py version /
# Absolute interpreter, links and mount points: for runtimes that drop this image's PATH, or cannot make folders in it.
RUN sed -i '1s|.*|#!/opt/hedypet/bin/python|' /run.py && chmod 755 /run.py && chmod 644 /version \
    && ln -s /opt/hedypet/bin/hedypet /opt/hedypet/bin/hedypet-* /usr/local/bin/ \
    && mkdir -p /data /out /work
# User packages of the host's home folder, which Singularity mounts, must not shadow those of the image.
ENV PATH=/opt/hedypet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1 \
    FREESURFER_HOME=/opt/freesurfer \
    HEDYPET_SYNTHSEG_DEVICE=cpu \
    TOTALSEG_WEIGHTS_PATH=/opt/totalsegmentator \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="hedypet" \
      org.opencontainers.image.description="BIDS App: total-body dynamic FDG PET/CT/MR to quantitative readouts" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
ENTRYPOINT ["/run.py"]
