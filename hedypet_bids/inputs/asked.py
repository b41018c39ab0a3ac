"""What was asked for and matches nothing: said before any work, as it is most often a misspelling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from hedypet_bids import names
from hedypet_bids.errors import MissingInputError, NothingSelectedError
from hedypet_bids.inputs.dataset import Dataset
from hedypet_bids.inputs.derivatives import AORTA_MASKS, TRANSFORMS
from hedypet_bids.settings import Selection

_PET_LABELS = {
    "tracer": ("trc", "--tracer-label"),
    "reconstruction": ("rec", "--rec-label"),
    "run": ("run", "--run-label"),
}
# Setting -> entity, folder and suffix of the images that it chooses among.
_SELECTED = {
    "dynamic_rec": ("rec", "pet", "pet"),
    "static_rec": ("rec", "pet", "pet"),
    "ct_rec": ("rec", "ct", "ct"),
    "head_mr_acq": ("acq", "anat", "T1w"),
    "body_mr_acq": ("acq", "anat", "T1w"),
}
_FILES = {"xfm": f"*{TRANSFORMS}", "aorta": AORTA_MASKS}
_SEGMENTATIONS = "*_dseg.nii*"


def check_asked(dataset: Dataset, selection: Selection, given: Mapping[str, Path]) -> None:
    """Raise an error for a label that no image has, or a folder of ready results without any.

    Parameters
    ----------
    dataset
        With the participants that are asked for.
    selection
        Preferred labels; those that are not the default were asked for.
    given
        Folders of ``--derivatives``, by name.

    Raises
    ------
    NothingSelectedError
        No participant has an image with a label that was asked for.
    MissingInputError
        A folder holds nothing for any participant.
    """
    for entity, labels in dataset.request.pet_labels.items():
        key, flag = _PET_LABELS[entity]
        missing = [label for label in labels if not _has(dataset, "pet", f"*_{key}-{label}_*pet.nii*")]
        if missing:
            raise NothingSelectedError(
                f"No PET image in {dataset.root} has {key}-{names.listed(missing)} in its name. Check {flag}."
            )
    usual = Selection()
    for setting, (key, folder, suffix) in _SELECTED.items():
        label = getattr(selection, setting)
        if label and label != getattr(usual, setting):
            pattern = f"*_{key}-{label}_*{suffix}.nii*"
            if not _has(dataset, folder, pattern):
                raise NothingSelectedError(
                    f"No {suffix} image in {dataset.root} has {key}-{label} in its name. Check [selection] "
                    f"{setting} of --settings, or --{setting.replace('_', '-')}."
                )
    for name, path in given.items():
        if next(_files_of(dataset, path, _FILES.get(name, _SEGMENTATIONS)), None) is None:
            raise MissingInputError(
                f"--derivatives {name}={path} has nothing for the participants asked for: expected files "
                f"{_FILES.get(name, _SEGMENTATIONS)} in folders or names that begin with sub-<label>."
            )


def _has(dataset: Dataset, folder: str, pattern: str) -> bool:
    found = (
        path
        for label in dataset.labels
        for place in (folder, f"ses-*/{folder}")
        for path in (dataset.root / f"sub-{label}").glob(f"{place}/{pattern}")
    )
    return next(found, None) is not None


def _files_of(dataset: Dataset, folder: Path, pattern: str) -> Iterator[Path]:
    for label in dataset.labels:
        yield from (folder / f"sub-{label}").rglob(pattern)
        yield from (path for path in folder.glob(f"sub-{label}[_-]*") if path.match(pattern))
