"""The outputs of a study in Python: images, segmentations, curves and readout tables, read when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from hedypet_bids import names
from hedypet_bids.errors import MissingInputError, UsageError
from hedypet_bids.group.dictionary import TABLES
from hedypet_bids.group.statistics import DENOMINATORS
from hedypet_bids.group.tables import schema
from hedypet_bids.io.tables import read_table
from hedypet_bids.names import Space

NORMALISATIONS = DENOMINATORS
"""Normalisations of activity by the column of ``metadata`` with their constants, Bq/g."""


class Study:
    """The output folder of ``hedypet``.

    Parameters
    ----------
    output_dir
        What was given as ``output_dir`` on the command line.

    Raises
    ------
    MissingInputError
        The folder holds no output of hedypet.

    Examples
    --------
    >>> study = Study("derivatives/hedypet")  # doctest: +SKIP
    >>> study.image("sub-001", "ct", space="bodystat", rec="br38f")  # doctest: +SKIP
    >>> study.readout("means", tasks=["ts_total"], labels=["liver"], normalise="SUV")  # doctest: +SKIP
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.root = Path(output_dir)
        if not (self.root / "dataset_description.json").is_file():
            raise MissingInputError(
                f"{self.root} holds no dataset_description.json, so it is no output of hedypet. "
                "Give the output_dir of the participant level."
            )

    @property
    def participants(self) -> tuple[str, ...]:
        """Participants with outputs: ``("sub-001", ...)``."""
        return tuple(sorted(path.name for path in self.root.glob("sub-*") if path.is_dir()))

    def image(
        self, subject: str, suffix: str, *, space: Space | None = None, **entities: str
    ) -> nib.Nifti1Image:
        """An image by the suffix of its name (``ct``, ``pet``, ``T1w``, ``Xray``, ``mimap``).

        Parameters
        ----------
        subject
            ``sub-001`` or ``001``.
        space
            ``bodystat``, ``bodydyn`` or ``head``; None for images in their own space.
        entities
            What else the name says, with the short keys of file names: ``rec="br38f"``, ``meas="Ki"``.

        Raises
        ------
        MissingInputError
            No image fits; the message lists those with this suffix.
        UsageError
            Several fit; the message lists them.
        """
        return nib.load(self._only(subject, suffix, ".nii.gz", space, entities))

    def segmentation(self, subject: str, task: str, *, space: Space | None = None) -> nib.Nifti1Image:
        """The label image of a task (``total``, ``synthseg``, ``aorta`` ...), raising as :meth:`image`."""
        return nib.load(self._only(subject, "dseg", ".nii.gz", space, {"seg": task}))

    def tacs(self, subject: str, task: str, *, erosion: int = 0) -> pd.DataFrame:
        """The time-activity curves of a task: frame_start, frame_end [s] and a column a region [Bq/mL]."""
        wanted = {"seg": task, "desc": f"eroded{erosion}" if erosion else ""}
        return read_table(self._only(subject, "tacs", ".tsv", None, wanted))

    def readout(
        self,
        table: str,
        *,
        subjects: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        normalise: str | None = None,
    ) -> pd.DataFrame:
        """Rows of a group table; only what is asked for is read.

        Parameters
        ----------
        table
            ``metadata``, ``means``, ``tacs``, ``input_function_tacs``, ``patlak_ki``, ``statistics`` or
            ``outliers``.
        subjects, tasks, labels
            Keep these values of the columns Subject, Task and Label Name.
        normalise
            ``SUV``, ``SUL James``, ``SUL Janma`` or ``SUL Decazes``: adds the columns
            ``<normalise> Mean [g/mL]`` and ``<normalise> STD [g/mL]``.

        Raises
        ------
        UsageError
            The table or the normalisation is unknown, or the table lacks the column of a filter.
        MissingInputError
            The group level has not been run.
        """
        if table not in TABLES:
            raise UsageError(f"There is no table {table!r}; there are {names.listed(TABLES)}.")
        path = self.root / names.readout(table, ".parquet")
        if not path.exists():
            raise MissingInputError(f"{path} does not exist. Run hedypet with 'group' first.")
        chosen = ds.scalar(True)
        for column, values in (("Subject", subjects), ("Task", tasks), ("Label Name", labels)):
            if values is not None and column not in TABLES[table]:
                raise UsageError(f"The table {table} has no column {column} to choose by.")
            if values is not None:
                wanted = [_prefixed(v) for v in values] if column == "Subject" else list(values)
                chosen = chosen & ds.field(column).isin(wanted)
        rows = _dataset(path, table).to_table(columns=list(TABLES[table]), filter=chosen).to_pandas()
        return rows if normalise is None else self._normalised(rows, normalise)

    def _normalised(self, rows: pd.DataFrame, normalise: str) -> pd.DataFrame:
        if normalise not in NORMALISATIONS:
            raise UsageError(
                f"There is no normalisation {normalise!r}; there are {names.listed(NORMALISATIONS)}."
            )
        if "PET Mean [Bq/mL]" not in rows:
            raise UsageError(
                "Only tables with PET means (means, tacs, input_function_tacs) can be normalised."
            )
        constants = self.readout("metadata").set_index("Subject")[NORMALISATIONS[normalise]]
        constant = rows["Subject"].map(constants)
        return rows.assign(
            **{
                f"{normalise} Mean [g/mL]": rows["PET Mean [Bq/mL]"] / constant,
                f"{normalise} STD [g/mL]": rows["PET STD [Bq/mL]"] / constant,
            }
        )

    def _only(
        self, subject: str, suffix: str, extension: str, space: Space | None, entities: dict[str, str]
    ) -> Path:
        folder = self.root / _prefixed(subject)
        if not folder.is_dir():
            raise MissingInputError(
                f"There is no {_prefixed(subject)}; there are {names.listed(self.participants)}."
            )
        wanted = {"space": space or "", **entities}
        candidates = sorted(folder.rglob(f"*_{suffix}{extension}"))
        found = [path for path in candidates if _fits(path, wanted)]
        asked = ", ".join(f"{key}={value!r}" for key, value in wanted.items() if value)
        if not found:
            there = "\n  ".join(path.name for path in candidates) or "nothing"
            raise MissingInputError(
                f"{folder.name} has no {suffix} with {asked or 'no space'}; there is\n  {there}"
            )
        if len(found) > 1:
            there = "\n  ".join(path.name for path in found)
            raise UsageError(f"Several files fit {suffix} {asked}; say more, for example rec=...:\n  {there}")
        return found[0]


def _dataset(path: Path, table: str) -> ds.Dataset:
    """A table in one file, or in a folder with a file a participant, of which only those needed are read."""
    subjects = ds.partitioning(pa.schema([("Subject", pa.string())]), flavor="hive")
    return ds.dataset(path, schema=schema(table), partitioning=subjects if path.is_dir() else None)


def _prefixed(subject: str) -> str:
    return subject if subject.startswith("sub-") else f"sub-{subject}"


def _fits(path: Path, wanted: dict[str, str]) -> bool:
    """Whether a name has every wanted entity; an empty one must not be there."""
    entities = names.entities_of(path.name)
    return all(entities.get(key, "") == value for key, value in wanted.items())
