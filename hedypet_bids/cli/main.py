"""argv -> options and settings -> pipeline -> exit code. Imports nothing heavy before work starts."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hedypet_bids.cli.boutiques import PrintDescriptor
from hedypet_bids.cli.console_streams import on_console
from hedypet_bids.cli.scheduler_options import TLS_OPTIONS, scheduler_address
from hedypet_bids.errors import HedypetError, StoppedBySignal, UnknownLevelError, UsageError
from hedypet_bids.io import work_dir
from hedypet_bids.io.address_space import check_address_space, out_of_memory
from hedypet_bids.run.options import (
    DERIVATIVES,
    LEVELS,
    LEVELS_OF_PROCESSING,
    STEP_NAMES,
    Options,
    check_output,
    has_meaning,
)
from hedypet_bids.version import __version__

if TYPE_CHECKING:
    from hedypet_bids.settings import Settings

_INTERRUPTED = 130  # as shells report an end by Ctrl-C


@on_console
def main(argv: Sequence[str] | None = None) -> int:
    """Run hedypet for a command line; returns the exit status."""
    try:
        options = parse(argv)
        check_address_space()
        settings = settings_of(options)  # before anything is written
        work_dir.prepare(options.work_dir)
        # Imported here: the study's modules take seconds, which --help and --version do not have.
        from hedypet_bids.run.app import run

        return run(options, settings)
    except (HedypetError, MemoryError, RuntimeError) as fault:
        error = fault if isinstance(fault, HedypetError) else out_of_memory(fault)
        if error is None:
            raise
        print(f"hedypet: {error}", file=sys.stderr)
        return error.exit_code
    except (StoppedBySignal, KeyboardInterrupt) as stop:
        print(
            "hedypet: stopped; finished steps are kept. Run the same command again to go on.", file=sys.stderr
        )
        return stop.exit_code if isinstance(stop, StoppedBySignal) else _INTERRUPTED


def parse(argv: Sequence[str] | None = None) -> Options:
    """Options of a command line.

    Raises
    ------
    UsageError
        An argument is unknown, missing or malformed.
    UnknownLevelError
        The analysis level is not ``participant`` or ``group``.
    """
    parser = _parser()
    given = parser.parse_args(argv)
    if given.analysis_level not in LEVELS:
        raise UnknownLevelError(
            f"Unknown analysis level {given.analysis_level!r}; expected one of {', '.join(LEVELS)}."
        )
    _check_level(parser, given)
    check_output(given.bids_dir, given.output_dir)
    return Options(
        bids_dir=given.bids_dir,
        output_dir=given.output_dir,
        level=given.analysis_level,
        participant_labels=tuple(given.participant_label),
        session_labels=tuple(given.session_label),
        derivatives=_named_paths(given.derivatives),
        bids_filter_file=given.bids_filter_file,
        skip_bids_validation=given.skip_bids_validation,
        settings_file=given.settings,
        values=_setting_values(given),
        work_dir=given.work_dir,
        nprocs=given.nprocs,
        mem_mb=given.mem_mb,
        dry_run=given.dry_run,
        verbosity=given.verbose,
        steps=_steps(given),
        stop_on_first_crash=given.stop_on_first_crash,
        clean_workdir=given.clean_workdir,
        dask_scheduler=given.dask_scheduler,
        tls_ca_file=given.tls_ca_file,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        low_mem=given.low_mem,
        device=given.device,
        gpu_mem_mb=given.gpu_mem_mb,
        use_totalsegmentator=not given.no_totalsegmentator,
        totalseg_weights=given.totalseg_weights,
        totalseg_license=given.totalseg_license,
        mri_synthseg=given.mri_synthseg,
        split=given.split,
        splits_file=given.splits,
        excluded_labels=tuple(given.exclude_participant_label),
        pet_labels={
            "tracer": tuple(given.tracer_label),
            "reconstruction": tuple(given.rec_label),
            "run": tuple(given.run_label),
        },
        corrections=given.corrections,
        database_dir=given.bids_database_dir,
        checksums=given.checksums,
    )


def settings_of(options: Options) -> Settings:
    """The study's settings: defaults, what the file changes, what the command line changes.

    Raises
    ------
    MissingInputError
        There is no settings file.
    UsageError
        A name or value is not allowed; a line for each.
    """
    from hedypet_bids.kernels.kinetics import model_names
    from hedypet_bids.settings import Settings

    models = model_names()
    file = options.settings_file
    settings = Settings.from_toml(file, models=models) if file else Settings()
    return settings.with_values(options.values, models=models)


def _check_level(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Raise UsageError for an option that means nothing at the level, where it would change nothing."""
    level = given.analysis_level
    for action in parser._actions:
        flag = next((flag for flag in action.option_strings if flag.startswith("--")), None)
        if flag is None or action.default == argparse.SUPPRESS or has_meaning(action.dest, level):
            continue
        if getattr(given, action.dest) != action.default:
            _check_values(given)
            (other,) = {*LEVELS} - {level}
            raise UsageError(
                f"{flag} means nothing at the {level} level, only at the {other} level. Leave it out."
            )


def _check_values(given: argparse.Namespace) -> None:
    """Raise UsageError for a value that is wrong at any level."""
    from hedypet_bids.settings import Settings

    Settings().with_values(_setting_values(given))


def _steps(given: argparse.Namespace) -> tuple[str, ...]:
    if given.reports_only:
        return ("report",)
    return LEVELS_OF_PROCESSING[given.level] if given.level else tuple(given.steps)


# Flags that set a parameter of the study: flag -> sections and parameter.
_SETTING_FLAGS = {
    "static_rec": ("selection", "static_rec"),
    "dynamic_rec": ("selection", "dynamic_rec"),
    "ct_rec": ("selection", "ct_rec"),
    "static_window": ("static", "window_min"),
    "aorta_method": ("aorta", "method"),
    "register": ("register", "method"),
    "model": ("kinetics", "models"),
    "reference_region": ("kinetics", "reference_region"),
    "integration_rule": ("kinetics", "patlak", "rule"),
    "window_start": ("kinetics", "patlak", "start_min"),
    "map_fwhm": ("kinetics", "map_fwhm_mm"),
    "write_suv": ("normalise", "write_suv"),
    "totalseg_fast": ("segment", "totalseg_fast"),
    "totalseg_roi_subset": ("segment", "totalseg_roi_subset"),
}


_RENAMED = {
    "--patlak-rule": "--integration-rule",
    "--patlak-start": "--window-start",
    "--patlak-map-fwhm": "--map-fwhm",
}


def _setting_values(given: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for flag, (*sections, parameter) in _SETTING_FLAGS.items():
        value = getattr(given, flag)
        if value is not None:
            section = values
            for name in sections:
                section = section.setdefault(name, {})
            section[parameter] = tuple(value) if isinstance(value, list) else value
    return values


class _Renamed(argparse.Action):
    """A former option, which names the one that took its place."""

    def __call__(self, _parser: object, _given: object, _values: object, flag: str | None = None) -> NoReturn:
        """Refuse the option."""
        new = _RENAMED[(flag or "").replace("_", "-")]
        raise UsageError(f"{flag} is now {new}. Use {new} with the same values.")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. Try {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hedypet",
        description="Total-body dynamic FDG PET/CT/MR (BIDS) to segmentations, aligned images, input "
        "functions, time-activity curves, Patlak Ki and readout tables.",
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", type=Path, help="the BIDS dataset (the folder with sub-*)")
    parser.add_argument("output_dir", type=Path, help="where the derivatives go")
    parser.add_argument(
        "analysis_level",
        metavar="{participant,group}",
        help="participant: process each participant; group: combine them into tables",
    )
    parser.add_argument("--version", action="version", version=f"hedypet {__version__}")
    _add(
        parser,
        "--bids-exec-spec",
        action=PrintDescriptor,
        version=__version__,
        help="print a Boutiques descriptor of this command line",
    )
    _add_input(parser.add_argument_group("input"))
    _add_study(parser.add_argument_group("study"))
    _add_segmentation(parser.add_argument_group("segmentation (where no ready one is found)"))
    _add_group(parser.add_argument_group("group"))
    _add_run(parser.add_argument_group("run"))
    return parser


def _add_input(group: argparse._ArgumentGroup) -> None:
    several: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "LABEL", "type": _label}
    _add(group, "--participant-label", help="only these participants", **several)
    _add(group, "--exclude-participant-label", help="all but these participants", **several)
    _add(
        group,
        "--session-label",
        help="only PET and CT of these sessions; MR of other sessions is used where these have none",
        **several,
    )
    _add(group, "--tracer-label", help="only PET images with these trc labels", **several)
    _add(group, "--rec-label", help="only PET images with these rec labels", **several)
    _add(group, "--run-label", help="only PET images with these run labels", **several)
    for part, image, default in (
        ("static", "static PET", "acstatPSF"),
        ("dynamic", "dynamic PET", "acdynPSF"),
        ("ct", "CT", "br38f"),
    ):
        text = f"the {image} reconstruction to use where there are several (default: {default})"
        _add(group, f"--{part}-rec", metavar="LABEL", help=text)
    _add(
        group,
        "-d",
        "--derivatives",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="ready segmentations (totalsegmentator=PATH synthseg=PATH), corrected aorta masks (aorta=PATH), "
        "given MR-to-CT matrices (xfm=PATH)",
    )
    _add(
        group,
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help='JSON that chooses images, e.g. {"dynamic": {"reconstruction": "acdynPSF"}}; parts: dynamic, '
        "static, ct, topogram, head_mr, body_mr",
    )
    _add(
        group,
        "--corrections",
        type=Path,
        metavar="DIR",
        help="folder with corrected masks, matrices and sidecar entries of single participants, named as in "
        "BIDS (docs/inputs.md)",
    )
    _add(
        group,
        "--bids-database-dir",
        type=Path,
        metavar="DIR",
        help="keep the index of each participant here; it is rebuilt when files come or go",
    )
    _add(group, "--skip-bids-validation", action="store_true", help="do not run the BIDS validator first")


def _add_study(group: argparse._ArgumentGroup) -> None:
    _add(group, "--settings", type=Path, metavar="FILE", help="TOML file with parameters of the study")
    _add(
        group,
        "--register",
        choices=("rigid", "identity"),
        help="register the MR to the CT (default), or take them as aligned",
    )
    _add(
        group,
        "--static-window",
        nargs=2,
        type=float,
        metavar=("FROM", "TO"),
        help="minutes after injection of which a static image is made where there is only a dynamic one "
        "(default: 50 70)",
    )
    _add(
        group,
        "--aorta-method",
        choices=("centreline", "nifti_dynamic"),
        help="how the aorta is cut into segments: along its centreline (default), or as the published "
        "hedyPET tables did it",
    )
    _add_kinetics(group)
    for renamed in _RENAMED:
        _add(group, renamed, action=_Renamed, nargs="*", help=argparse.SUPPRESS)
    _add(group, "--write-suv", action="store_true", default=None, help="also write the static PET in SUV")


def _add_kinetics(group: argparse._ArgumentGroup) -> None:
    _add(
        group,
        "--model",
        nargs="+",
        metavar="NAME",
        help="kinetic models to fit (default: Patlak)",
    )
    _add(
        group,
        "--reference-region",
        nargs="+",
        metavar="REGION",
        help="regions of one segmentation that together are the reference region of SRTM, MRTM, MRTM2 and "
        "SUVR",
    )
    _add(
        group,
        "--integration-rule",
        choices=("auto", "simpson", "frames"),
        help="integration of the input function: as in the published hedyPET tables (simpson), exactly over "
        "the frames (frames), or simpson for the frames of the hedyPET protocol and frames for all others "
        "(auto, the default)",
    )
    _add(
        group,
        "--window-start",
        nargs="+",
        type=float,
        metavar="MIN",
        help="also fit all frames from these times on, minutes after injection",
    )
    _add(
        group,
        "--map-fwhm",
        type=float,
        metavar="MM",
        help="smooth the Patlak maps (default: not at all)",
    )


def _add_segmentation(group: argparse._ArgumentGroup) -> None:
    _add(
        group,
        "--device",
        type=_device,
        default="auto",
        metavar="{auto,cpu,gpu,gpu:N}",
        help="where TotalSegmentator and SynthSeg run (default: on a GPU if there is one)",
    )
    _add(
        group,
        "--gpu-mem-mb",
        type=_positive,
        metavar="MB",
        help="memory of the GPU that TotalSegmentator may use (default: what is free)",
    )
    _add(
        group,
        "--totalseg-weights",
        type=Path,
        metavar="DIR",
        help="folder with TotalSegmentator's weights (default: TOTALSEG_WEIGHTS_PATH, else where "
        "hedypet-weights fetch puts them)",
    )
    _add(
        group,
        "--totalseg-license",
        metavar="NUMBER",
        help="licence number, without which the tissue task is left out; better kept in the environment "
        "(TOTALSEG_LICENSE), where other users cannot see it",
    )
    _add(
        group,
        "--totalseg-fast",
        action="store_true",
        default=None,
        help="use the faster networks (3 mm; body 6 mm)",
    )
    _add(
        group,
        "--totalseg-roi-subset",
        nargs="+",
        metavar="REGION",
        help="segment only these regions of total",
    )
    _add(group, "--no-totalsegmentator", action="store_true", help="use ready CT segmentations only")
    _add(
        group,
        "--mri-synthseg",
        type=Path,
        metavar="PATH",
        help="FreeSurfer's mri_synthseg (default: of FREESURFER_HOME or on PATH; without it there is no MR "
        "segmentation)",
    )


def _add_group(group: argparse._ArgumentGroup) -> None:
    _add(group, "--split", metavar="NAME", help="tables of the participants of this split only")
    _add(
        group,
        "--splits",
        type=Path,
        metavar="FILE",
        help='JSON with the participants of each split, e.g. {"train": ["sub-001"]}; without it splits.json '
        "of the output or the dataset, or the column split of participants.tsv",
    )


def _add_run(group: argparse._ArgumentGroup) -> None:
    _add(group, "-w", "--work-dir", type=Path, metavar="DIR", help="folder for temporary files and caches")
    _add(group, "--nprocs", type=_positive, metavar="N", help="worker processes (default: all processors)")
    _add(group, "--mem-mb", type=_positive, metavar="MB", help="memory that all workers may use together")
    _add(
        group,
        "--low-mem",
        action="store_true",
        help="one step after the other, also where processors and memory allow several of a participant",
    )
    _add(
        group,
        "--dask-scheduler",
        type=scheduler_address,
        metavar="ADDRESS",
        help="send the participants to the hedypet-worker processes of this Dask scheduler, such as "
        "tls://node1:8786; with --device gpu those with a GPU segment",
    )
    for flag, text in TLS_OPTIONS.items():
        _add(group, flag, type=Path, metavar="FILE", help=text)
    _add_extent(group)
    _add(group, "-v", "--verbose", action="count", default=0, help="log more; twice for debugging")


def _add_extent(group: argparse._ArgumentGroup) -> None:
    """Which part of the work is done, and when it stops."""
    which = group.add_mutually_exclusive_group()
    _add(
        which,
        "--steps",
        nargs="+",
        default=[],
        choices=STEP_NAMES,
        metavar="STEP",
        help=f"run only these steps, others count if they are done: {', '.join(STEP_NAMES)}",
    )
    _add(
        which,
        "--level",
        choices=tuple(LEVELS_OF_PROCESSING),
        help="how far to go: minimal (segmentation, registration), resampling (also images in every space "
        "and SUV constants) or full (default)",
    )
    _add(which, "--reports-only", action="store_true", help="write the reports again: --steps report")
    _add(
        group,
        "--checksums",
        action="store_true",
        help="tell changed inputs by their content, not by size and modification time: for copies and clones "
        "of a dataset",
    )
    _add(
        group,
        "--stop-on-first-crash",
        action="store_true",
        help="begin no further participant after one has failed",
    )
    _add(
        group,
        "--clean-workdir",
        action="store_true",
        help="empty the work folder at the end; not for one that runs share",
    )
    _add(
        group,
        "--dry-run",
        action="store_true",
        help="print what was found and which steps would run, and stop",
    )


def _add(group: argparse._ActionsContainer, *flags: str, **options: object) -> None:
    """Add an option that answers to dashes and to underscores, as BIDS Apps are called both ways."""
    underscored = [f"--{flag[2:].replace('-', '_')}" for flag in flags if flag.startswith("--")]
    twins = [flag for flag in underscored if flag not in flags]
    action = group.add_argument(*flags, **options)  # type: ignore[arg-type]
    if twins:
        hidden = {**options, "help": argparse.SUPPRESS, "dest": action.dest, "default": argparse.SUPPRESS}
        group.add_argument(*twins, **hidden)  # type: ignore[arg-type]


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|gpu(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, gpu or gpu:N; found {text}")
    return text


def _label(text: str) -> str:
    label = re.sub("^(sub|ses|trc|rec|run)-", "", text)
    if not label.strip():
        raise argparse.ArgumentTypeError(f"expected a label; found {text!r}")
    return label


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1; found {text!r}")
    return int(text)


def _named_paths(items: Sequence[str]) -> dict[str, Path]:
    named = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals:
            # fMRIPrep also takes a bare path: the folder's own name then is the name.
            name, path = Path(item).name, item
        if name not in DERIVATIVES:
            raise UsageError(
                f"--derivatives {item}: expected NAME=PATH with a name among {', '.join(DERIVATIVES)}; "
                f"found the name {name!r}."
            )
        named[name] = Path(path)
    return named
