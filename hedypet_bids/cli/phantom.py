"""The command ``hedypet-phantom``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hedypet_bids.cli.console_streams import on_console
from hedypet_bids.errors import HedypetError, ReadWriteError, UsageError
from hedypet_bids.phantom.dataset import truth_folder, write_phantom
from hedypet_bids.phantom.grids import SIZES
from hedypet_bids.phantom.kinetics import hedypet_frames, merged_frames
from hedypet_bids.phantom.tracers import FDG, TRACERS


@on_console
def main(argv: Sequence[str] | None = None) -> int:
    """Write a phantom dataset as the command line says; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        out = _write(options)
    except HedypetError as fault:
        sys.stderr.write(f"hedypet-phantom: error: {fault}\n")
        return fault.exit_code
    sys.stdout.write(f"Dataset: {out}\nTruth:   {truth_folder(out)}\n")
    return 0


def _write(options: argparse.Namespace) -> Path:
    frames = hedypet_frames()
    if options.frames is not None:
        if not 1 <= options.frames <= len(frames):
            raise UsageError(f"--frames must be 1 to {len(frames)}; found {options.frames}.")
        frames = merged_frames(frames, options.frames)
    try:
        return write_phantom(
            options.out,
            participants=options.participants,
            seed=options.seed,
            size=options.size,
            frames=frames,
            sessions=options.sessions,
            tracers=options.tracers,
            runs=options.runs,
            extra_statics=options.extra_statics,
            delays=options.delays,
            blood=options.blood,
        )
    except OSError as fault:
        raise ReadWriteError(f"Writing {fault.filename or options.out} failed: {fault.strerror}.") from fault


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hedypet-phantom",
        description="Write a raw BIDS dataset of whole-body PET/CT/MR phantoms whose true curves, "
        "volumes and transforms are known. The truth goes to OUT_truth.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="new or empty folder for the dataset")
    parser.add_argument("--participants", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="default: %(default)s")
    parser.add_argument(
        "--size",
        choices=tuple(SIZES),
        default="tiny",
        help="tiny: seconds; small: 3 to 4 mm voxels; full: a real scan's matrix, 440x440x645 with 69 "
        "frames (default: %(default)s)",
    )
    parser.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help="join neighbouring frames of the first tracer's dynamic PET into N (default: hedyPET's 69); "
        "further tracers have half as many",
    )
    parser.add_argument(
        "--sessions",
        type=int,
        default=1,
        metavar="N",
        help="PET/CT sessions of each participant, each with its own CT, pose, weight and dose; 0: no "
        "sessions in the file names (default: %(default)s)",
    )
    parser.add_argument(
        "--tracers",
        nargs="+",
        choices=tuple(TRACERS),
        default=[FDG.label],
        metavar="TRACER",
        help=f"injected one after the other in each session: {', '.join(TRACERS)} (default: {FDG.label})",
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=1,
        metavar="N",
        help="injections of each tracer in a session (default: %(default)s)",
    )
    _add_extras(parser)
    return parser


def _add_extras(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--extra-statics",
        action="store_true",
        help="also write the static reconstructions acstatOSEM and acstatOSEMhead (head only, small voxels)",
    )
    parser.add_argument(
        "--delays",
        action="store_true",
        help="let blood arrive in each tissue at a time of its own, -3 to 20 s after the aorta",
    )
    parser.add_argument(
        "--blood",
        action="store_true",
        help="with reversible tracers also write blood samples: whole blood, plasma with metabolites, parent "
        "fraction; the cerebellar cortex then binds none of the tracer",
    )
