"""Before any participant: are the programs, weights, licence and device there that the run needs?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hedypet_bids.errors import HedypetError
from hedypet_bids.labels import CT_TASKS
from hedypet_bids.model import Subject
from hedypet_bids.run.options import SEGMENT, Options, chosen
from hedypet_bids.settings import SegmentSettings
from hedypet_bids.steps.step import Tools
from hedypet_bids.tools import synthseg, totalsegmentator
from hedypet_bids.tools.synthseg import SynthSeg
from hedypet_bids.tools.totalsegmentator import Model, TotalSegmentator

NO_LICENCE = (
    "TotalSegmentator's task tissue_types needs a licence number (--totalseg-license or TOTALSEG_LICENSE; "
    "free for non-commercial use: https://backend.totalsegmentator.com/license-academic/)"
)


def segmentation_tools(
    options: Options, settings: SegmentSettings, subjects: Sequence[Callable[[], Subject]]
) -> Tools:
    """The segmentation programs, after making sure that they can do what the participants need.

    Parameters
    ----------
    subjects
        Gives each participant; called only where it matters what they have.

    Raises
    ------
    MissingInputError
        Weights of a task that a participant needs are missing, or the GPU that was asked for is.
    MissingProgramError
        The ``mri_synthseg`` that was given is no program.
    UsageError
        The licence number cannot be one.
    """
    program = synthseg.find_synthseg(options.mri_synthseg)
    mr_tool = SynthSeg(program, options.device) if program else None
    if not options.use_totalsegmentator:
        without = dict.fromkeys(totalsegmentator.TASK_NAMES, "--no-totalsegmentator was given")
        return Tools(synthseg=mr_tool, without=without, work_dir=options.work_dir)
    licence = totalsegmentator.find_licence(options.totalseg_license)
    weights = totalsegmentator.weights_folder(options.totalseg_weights)
    if chosen(options.steps, SEGMENT):
        # A dry run may be on a machine without the GPU that the run will have, and a cluster has its own.
        device = "auto" if options.dry_run or options.dask_scheduler else options.device
        _check(weights, _models(settings, licensed=bool(licence)), device, subjects)
    return Tools(
        TotalSegmentator(weights, licence, options.device, options.gpu_mem_mb),
        mr_tool,
        {
            **({} if licence else dict.fromkeys(totalsegmentator.LICENSED_TASKS, NO_LICENCE)),
            **dict(_without_mr_networks(weights, settings)),
        },
        options.work_dir,
    )


def _without_mr_networks(weights: Path, settings: SegmentSettings) -> Iterator[tuple[str, str]]:
    """The networks for MR whose weights are not right, each with what is wrong.

    Unlike those for CT they stop no run: nearly every dataset with an MR of the body has CTs to segment.
    """
    for task in totalsegmentator.MR_NETWORKS.values():
        models = totalsegmentator.models_of_task(
            task, fast=settings.totalseg_fast, roi_subset=settings.totalseg_roi_subset
        )
        faults = totalsegmentator.faults_of_weights(weights, models)
        if faults:
            listed = ", ".join(f"{model.folder}: {reason}" for model, reason in faults.items())
            numbers = " ".join(str(model.number) for model in faults)
            yield (
                task,
                (
                    f"in {weights} these weights of {task} are not right: {listed} "
                    f"('{totalsegmentator.FETCH_COMMAND} {numbers}')"
                ),
            )


def _models(settings: SegmentSettings, *, licensed: bool) -> dict[str, tuple[Model, ...]]:
    return {
        task.name: totalsegmentator.models_of_task(
            task.name, fast=settings.totalseg_fast, roi_subset=settings.totalseg_roi_subset
        )
        for task in CT_TASKS
        if licensed or task.name not in totalsegmentator.LICENSED_TASKS
    }


def _check(
    weights: Path,
    models: dict[str, tuple[Model, ...]],
    device: str,
    subjects: Iterable[Callable[[], Subject]],
) -> None:
    faulty = totalsegmentator.faults_of_weights(weights, [m for needed in models.values() for m in needed])
    if not faulty and not device.startswith("gpu"):
        return
    needed = _needed(set(models), subjects)
    if needed:
        totalsegmentator.check_weights(weights, {task: models[task] for task in models if task in needed})
        totalsegmentator.check_device(device)


def _needed(tasks: set[str], subjects: Iterable[Callable[[], Subject]]) -> set[str]:
    """Those of the tasks that a scan with a CT has no ready segmentation of."""
    needed: set[str] = set()
    for read in subjects:
        if needed == tasks:
            break
        try:
            scans = read().scans
        except HedypetError:
            continue  # its own run will say so, and must not stop the others
        for scan in scans:
            needed |= tasks - set(scan.ready_segmentations) if scan.ct is not None else set()
    return needed
