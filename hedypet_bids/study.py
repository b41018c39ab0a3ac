"""The outputs of a study in Python: images, segmentations, curves, fits and tables, read when asked for.

The only reader of an output folder: notebooks, the pages and the explorer go through it. What there is of a
participant it knows from the participant's manifest, what there is of the group from the files in
``readouts``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from hedypet_bids import names
from hedypet_bids.errors import BadDataError, MissingInputError, UsageError
from hedypet_bids.io.manifest import Kind, Manifest, Output, ScanEntry, ScanOutputs, labels_with_outputs
from hedypet_bids.io.parquet import parquet_dataset
from hedypet_bids.io.tables import FRAME_END, FRAME_START, read_blood, read_table, read_timed
from hedypet_bids.names import NORMALISATIONS, SCAN_COLUMNS, ScanName, Space

_SELECTORS = {"session": "ses-", "tracer": "trc-", "run": "run-"}
_SAID_OTHERWISE = ("ses", "trc", "run", "space", "res")
_PET_MEAN, _PET_STD = "PET Mean [Bq/mL]", "PET STD [Bq/mL]"


class Study:
    """The output folder of ``hedypet``.

    A participant may have several scans (sessions, tracers, runs). ``session``, ``tracer`` and ``run`` choose
    among them; they can be left out where what is left fits one file.

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
    >>> study = Study("OUTPUT_DIR")
    >>> study.participants
    ('sub-001', 'sub-002')
    >>> study.scans[["Subject", "Session", "Tracer"]].iloc[0].tolist()
    ['sub-001', 'quadra', '18FFDG']
    >>> ct = study.image("sub-001", "ct", space="bodystat", rec="br38f")
    >>> ct.shape == study.segmentation("sub-001", "total", space="bodystat").shape
    True
    >>> liver = study.readout("means", tasks=["ts_total"], labels=["liver"], normalise="SUV")
    >>> liver["SUV Mean [g/mL]"].between(1, 5).all()
    np.True_
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.root = Path(output_dir)
        if not (self.root / names.DESCRIPTION).is_file():
            raise MissingInputError(
                f"{self.root} holds no dataset_description.json, so it is not an output of hedypet. "
                "Give the output_dir of the participant level."
            )

    @property
    def participants(self) -> tuple[str, ...]:
        """Participants with a manifest, which every run ends with: ``("sub-001", ...)``."""
        labels = labels_with_outputs(self.root)
        return tuple(f"sub-{label}" for label in labels if (self.root / names.manifest(label)).is_file())

    @property
    def scans(self) -> pd.DataFrame:
        """Every scan of every participant.

        Returns
        -------
        pandas.DataFrame
            ``Subject``, ``Session``, ``Tracer`` and ``Run`` (empty where the dataset does not say), ``Page``
            (file name of the scan's page), ``Dynamic`` (file name of the dynamic PET; empty without one) and
            ``Statics`` (tuple of the file names of the static PET images, the one that stands for the scan
            first).

        Raises
        ------
        BadDataError
            A manifest cannot be read.
        """
        rows = [
            (
                subject,
                scan.name.session,
                scan.name.tracer,
                scan.name.run,
                scan.page,
                scan.dynamic,
                scan.statics,
            )
            for subject in self.participants
            for scan in self._manifest(subject).scans
        ]
        return pd.DataFrame(rows, columns=[*SCAN_COLUMNS, "Page", "Dynamic", "Statics"])

    def image(
        self,
        subject: str,
        suffix: str,
        *,
        space: Space | None = None,
        session: str | None = None,
        tracer: str | None = None,
        run: str | None = None,
        **entities: str,
    ) -> nib.Nifti1Image:
        """An image by the suffix of its name (``ct``, ``pet``, ``T1w``, ``Xray``, ``mimap``).

        Parameters
        ----------
        subject
            ``sub-001`` or ``001``.
        suffix
            What the name ends with, before ``.nii.gz``.
        space
            ``bodystat``, ``bodydyn`` or ``head``; None for images in their own space.
        session, tracer, run
            The scan, as in :attr:`scans`; None where there is no choice.
        entities
            What else the name says, with the short keys of file names: ``rec="br38f"``, ``meas="Ki"``. An
            empty value is one that the name does not have.

        Returns
        -------
        nibabel.Nifti1Image
            Voxels are read when they are asked for.

        Raises
        ------
        MissingInputError
            No such participant, scan or image; the message lists those that there are.
        UsageError
            Several images fit; the message lists them and says what chooses.
        """
        of_suffix = self._outputs(subject, session, tracer, run, f"_{suffix}.nii.gz")
        found = [
            output for output in of_suffix if _space_of(output.kind) == space and _fits(output.path, entities)
        ]
        said = {"space": space, **entities}
        asked = ", ".join(f"{key}={value!r}" for key, value in said.items() if value is not None)
        return nib.load(self._only(subject, found, of_suffix, f"{suffix} with {asked or 'no space'}"))

    def segmentation(
        self,
        subject: str,
        task: str,
        *,
        space: Space | None = None,
        session: str | None = None,
        tracer: str | None = None,
        run: str | None = None,
    ) -> nib.Nifti1Image:
        """The label image of a task.

        Parameters
        ----------
        subject
            ``sub-001`` or ``001``.
        task
            ``total``, ``tissue``, ``body``, ``synthseg``, ``synthsegparc``, ``aorta`` or ``aortavoi...``.
        space
            ``bodystat``, ``bodydyn`` or ``head``; None for the labels on the image that was segmented.
        session, tracer, run
            The scan, as in :attr:`scans`; None where there is no choice.

        Returns
        -------
        nibabel.Nifti1Image
            Voxels are read when they are asked for.

        Raises
        ------
        MissingInputError
            No such participant, scan or label image; the message lists those that there are.
        UsageError
            Several fit; the message lists them and says what chooses.
        """
        kind: Kind = ("labels", space, task) if space else ("labels", task)
        asked = (
            f"segmentation {task} {f'in the space {space}' if space else 'on the image that was segmented'}"
        )
        return nib.load(self._file(subject, kind, asked, session, tracer, run))

    def tacs(
        self,
        subject: str,
        task: str,
        *,
        erosion: int = 0,
        session: str | None = None,
        tracer: str | None = None,
        run: str | None = None,
    ) -> pd.DataFrame:
        """The time-activity curves of a task; raises as :meth:`segmentation`.

        Parameters
        ----------
        subject
            ``sub-001`` or ``001``.
        task
            As in :meth:`segmentation`, or ``totalimage`` for the mean of all voxels.
        erosion
            How often the regions were eroded by one voxel.
        session, tracer, run
            The scan, as in :attr:`scans`; None where there is no choice.

        Returns
        -------
        pandas.DataFrame
            ``frame_start`` and ``frame_end``, s after injection (the file has them from TimeZero), and a
            column a region, Bq/mL.
        """
        asked = f"curves of {task} with {erosion} erosions"
        return read_timed(self._file(subject, ("mean", task, erosion), asked, session, tracer, run))

    def input_functions(
        self, subject: str, *, session: str | None = None, tracer: str | None = None, run: str | None = None
    ) -> pd.DataFrame:
        """The input functions of a scan; raises as :meth:`segmentation`.

        Parameters
        ----------
        subject
            ``sub-001`` or ``001``.
        session, tracer, run
            The scan, as in :attr:`scans`; None where there is no choice.

        Returns
        -------
        pandas.DataFrame
            ``frame_start`` and ``frame_end``, s after injection (the files have them from TimeZero), and a
            column an input function, Bq/mL, by the recording label of its file.
        """
        tables = self.outputs(subject, session=session, tracer=tracer, run=run).of("blood")
        if not tables:
            raise MissingInputError(f"{_prefixed(subject)} has no input function in {self.root}.")
        read = {name: read_blood(path) for name, path in tables.items()}
        frames = next(iter(read.values())).frames
        times = {FRAME_START: frames.start_s, FRAME_END: frames.end_s}
        return pd.DataFrame({**times, **{name: blood.mean for name, blood in read.items()}})

    def kinetics(
        self,
        subject: str,
        model: str,
        task: str,
        *,
        erosion: int = 0,
        session: str | None = None,
        tracer: str | None = None,
        run: str | None = None,
    ) -> pd.DataFrame:
        """The fits of a kinetic model to the regions of a task; raises as :meth:`segmentation`.

        Parameters
        ----------
        subject
            ``sub-001`` or ``001``.
        model
            ``Patlak``, or the name of another model of the settings.
        task, erosion
            As in :meth:`tacs`.
        session, tracer, run
            The scan, as in :attr:`scans`; None where there is no choice.

        Returns
        -------
        pandas.DataFrame
            A row per region, input function and window; units are in the JSON file beside the table.
        """
        asked = f"fits of {model} to {task} with {erosion} erosions"
        kind = ("kinetics", model, task, erosion)
        return read_table(self._file(subject, kind, asked, session, tracer, run))

    def outputs(
        self, subject: str, *, session: str | None = None, tracer: str | None = None, run: str | None = None
    ) -> ScanOutputs:
        """All files of one scan by what they are; raises as :meth:`segmentation`.

        Parameters
        ----------
        subject
            ``sub-001`` or ``001``.
        session, tracer, run
            The scan, as in :attr:`scans`; None where there is no choice.

        Returns
        -------
        ScanOutputs
            ``outputs.of("labels", "bodystat")`` are the paths of the label images in that space by task.
        """
        manifest = self._manifest(subject)
        scans = _chosen(manifest, session, tracer, run)
        if len(scans) > 1:
            raise UsageError(
                f"{_prefixed(subject)} has several scans: {names.listed(scan.name for scan in scans)}. "
                f"Choose with {'; '.join(_choosing_scan(scan.name for scan in scans))}."
            )
        files = manifest.of_scan(scans[0]).files
        return ScanOutputs({kind: self.root / path for kind, path in files.items()})

    @property
    def tables(self) -> tuple[str, ...]:
        """Group tables that there are: ``("input_function_tacs", "means", ...)``."""
        return tuple(sorted(path.stem for path in (self.root / "readouts").glob("*.parquet")))

    def columns(self, table: str) -> tuple[str, ...]:
        """The columns of a group table, in the order of its dictionary; raises as :meth:`dictionary`.

        Parameters
        ----------
        table
            One of :attr:`tables`.

        Returns
        -------
        tuple of str
            Their names.
        """
        try:
            there = self._dataset(table).schema.names
        except (OSError, pa.ArrowException) as fault:
            raise _unreadable(table, fault) from fault
        described = [column for column in self.dictionary(table) if column in there]
        return (*described, *(column for column in there if column not in described))

    def dictionary(self, table: str) -> dict[str, dict[str, Any]]:
        """The columns of a group table in their order, each with its description, units and levels.

        Parameters
        ----------
        table
            One of :attr:`tables`.

        Returns
        -------
        dict
            The data dictionary of BIDS: ``Description``, ``Units`` and ``Levels`` by column.

        Raises
        ------
        UsageError
            There is no such table.
        MissingInputError
            The group level has not been run.
        BadDataError
            The table or its dictionary cannot be read.
        """
        self._table_path(table)
        path = self.root / names.readout(table, ".json")
        try:
            columns: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as fault:
            raise BadDataError(f"{path} cannot be read: {fault}. Run the group level again.") from fault
        return columns

    def readout(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        subjects: Sequence[str] | None = None,
        sessions: Sequence[str] | None = None,
        tracers: Sequence[str] | None = None,
        runs: Sequence[str] | None = None,
        reconstructions: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        erosions: Sequence[int] | None = None,
        normalise: str | None = None,
    ) -> pd.DataFrame:
        """Rows of a group table; only what is asked for is read.

        Parameters
        ----------
        table
            One of :attr:`tables`, for example ``means``.
        columns
            Those to read; None for all.
        subjects, sessions, tracers, runs, reconstructions, tasks, labels, erosions
            Keep these values of the columns Subject, Session, Tracer, Run, Reconstruction, Task, Label Name
            and Erosion Iterations; ``""`` stands for rows without, None keeps all.
        normalise
            ``SUV``, ``SUL James``, ``SUL Janma`` or ``SUL Decazes``: adds the columns
            ``<normalise> Mean [g/mL]`` and ``<normalise> STD [g/mL]``, by the constant of the row's scan.

        Returns
        -------
        pandas.DataFrame
            Missing values as NaN.

        Raises
        ------
        UsageError
            The table, a column or the normalisation is unknown, or the table lacks the column of a filter.
        MissingInputError
            The group level has not been run.
        BadDataError
            The table cannot be read, or is that of an older hedypet.
        """
        filters: dict[str, Sequence[Any] | None] = {
            "Subject": None if subjects is None else [_prefixed(subject) for subject in subjects],
            "Session": sessions,
            "Tracer": tracers,
            "Run": runs,
            "Reconstruction": reconstructions,
            "Task": tasks,
            "Label Name": labels,
            "Erosion Iterations": erosions,
        }
        chosen = {column: list(values) for column, values in filters.items() if values is not None}
        if normalise is None:
            return self._rows(table, columns, chosen)
        if normalise not in NORMALISATIONS:
            raise UsageError(
                f"There is no normalisation {normalise!r}; there are {names.listed(NORMALISATIONS)}."
            )
        if _PET_MEAN not in self.columns(table):
            raise UsageError(
                "Only tables with PET means (means, tacs, input_function_tacs) can be normalised."
            )
        needed = None if columns is None else [*dict.fromkeys([*columns, *SCAN_COLUMNS, _PET_MEAN, _PET_STD])]
        rows = self._rows(table, needed, chosen)
        constant = self._constants_of(rows, NORMALISATIONS[normalise])
        rows = rows.assign(
            **{
                f"{normalise} Mean [g/mL]": rows[_PET_MEAN] / constant,
                f"{normalise} STD [g/mL]": rows[_PET_STD] / constant,
            }
        )
        return rows if columns is None else rows[[*columns, *rows.columns[-2:]]]

    def distinct(self, table: str, columns: Sequence[str]) -> pd.DataFrame:
        """The different rows of some columns of a group table, sorted; raises as :meth:`readout`.

        Parameters
        ----------
        table
            One of :attr:`tables`.
        columns
            Those that are compared.

        Returns
        -------
        pandas.DataFrame
            Each combination of values once.
        """
        rows = self._read(table, columns, {}, encoded=True).unify_dictionaries()
        found: pd.DataFrame = rows.group_by(list(columns)).aggregate([]).cast(_plain(rows.schema)).to_pandas()
        return found.sort_values(list(columns), ignore_index=True)

    def _constants_of(self, rows: pd.DataFrame, constant: str) -> pd.Series[Any]:
        """What the activity of each row is divided by: the constant of its scan."""
        constants = self._rows("metadata", [*SCAN_COLUMNS, constant], {})
        # Missing values are no keys; where the dataset has no session, all rows of a participant are of none.
        keys = list(SCAN_COLUMNS)
        left, right = rows[keys].fillna(""), constants.assign(**constants[keys].fillna(""))
        found: pd.Series[Any] = left.merge(right, how="left", on=keys, validate="many_to_one")[constant]
        return found.set_axis(rows.index)

    def _rows(
        self, table: str, columns: Sequence[str] | None, chosen: Mapping[str, list[Any]]
    ) -> pd.DataFrame:
        rows: pd.DataFrame = self._read(table, columns, chosen).to_pandas()
        return rows

    def _read(
        self,
        table: str,
        columns: Sequence[str] | None,
        chosen: Mapping[str, list[Any]],
        *,
        encoded: bool = False,
    ) -> pa.Table:
        there = self.columns(table)
        for column in [*(columns or ()), *chosen]:
            if column in there:
                continue
            if column in (*SCAN_COLUMNS[1:], "Reconstruction") and "Tracer" not in there:
                raise _older(table, column)
            raise UsageError(f"The table {table} has no column {column}; it has {names.listed(there)}.")
        found, kept = self._dataset(table, encoded=encoded), ds.scalar(True)
        for column, values in chosen.items():
            wanted = ds.field(column).isin(_typed(values, found.schema.field(column)))
            # A table says nothing where a file name says nothing.
            kept = kept & (wanted | ds.field(column).is_null() if "" in values else wanted)
        try:
            return found.to_table(columns=list(columns or there), filter=kept)
        except (OSError, pa.ArrowException) as fault:
            raise _unreadable(table, fault) from fault

    def _dataset(self, table: str, *, encoded: bool = False) -> ds.Dataset:
        """A table: one file, or a folder with a file a participant, of which only those needed are read.

        With ``encoded`` text stays numbered as in the file, which is quicker to group by.
        """
        path = self._table_path(table)
        subjects = ds.partitioning(pa.schema([("Subject", pa.string())]), flavor="hive")
        partitioning = subjects if path.is_dir() else None
        found = parquet_dataset(path, format="parquet", partitioning=partitioning)
        if not encoded:
            return found
        text = [field.name for field in found.schema if field.type == pa.string()]
        return parquet_dataset(
            path, format=ds.ParquetFileFormat(dictionary_columns=text), partitioning=partitioning
        )

    def _table_path(self, table: str) -> Path:
        path = self.root / names.readout(table, ".parquet")
        if path.exists():
            return path
        if self.tables and not path.with_suffix(".json").exists():
            raise UsageError(f"There is no table {table!r}; there are {names.listed(self.tables)}.")
        raise MissingInputError(f"{path} does not exist. Run hedypet with 'group' first.")

    def _manifest(self, subject: str) -> Manifest:
        label = names.participant_label(subject)
        if not (self.root / f"sub-{label}").is_dir():
            raise MissingInputError(f"There is no sub-{label}; there are {names.listed(self.participants)}.")
        return Manifest.read(self.root, label)

    def _outputs(
        self, subject: str, session: str | None, tracer: str | None, run: str | None, ending: str = ""
    ) -> list[Output]:
        """The files of the scans that are not ruled out."""
        manifest = self._manifest(subject)
        chosen = {str(scan.name) for scan in _chosen(manifest, session, tracer, run)}
        return [
            replace(output, scans=tuple(scan for scan in output.scans if scan in chosen))
            for output in manifest.outputs
            if output.path.endswith(ending) and not chosen.isdisjoint(output.scans)
        ]

    def _file(
        self, subject: str, kind: Kind, asked: str, session: str | None, tracer: str | None, run: str | None
    ) -> Path:
        of_type = [o for o in self._outputs(subject, session, tracer, run) if o.kind[0] == kind[0]]
        found = [output for output in of_type if output.kind == kind]
        return self._only(subject, found, of_type, asked)

    def _only(self, subject: str, found: Sequence[Output], others: Sequence[Output], asked: str) -> Path:
        """The one file that fits."""
        if len(found) == 1:
            return self.root / found[0].path
        if found:
            choices = _choosing_file(found, [scan.name for scan in self._manifest(subject).scans])
            raise UsageError(
                f"{_prefixed(subject)} has several files for {asked}; choose with {'; '.join(choices)}:\n  "
                f"{_paths(found)}"
            )
        raise MissingInputError(f"{_prefixed(subject)} has no {asked}; there is\n  {_paths(others)}")


def _prefixed(subject: str) -> str:
    return f"sub-{names.participant_label(subject)}"


def _typed(values: list[Any], column: pa.Field) -> pa.Array:
    """Values to choose by in the type of their column.

    Raises
    ------
    UsageError
        They have another type.
    """
    try:
        return pa.array(values, type=column.type)
    except pa.ArrowException as fault:
        raise UsageError(f"The column {column.name} holds {column.type}; found {values}.") from fault


def _plain(schema: pa.Schema) -> pa.Schema:
    """A schema with text in the place of numbered text."""
    types = [f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in schema]
    return pa.schema(list(zip(schema.names, types, strict=True)))


def _unreadable(table: str, fault: Exception) -> BadDataError:
    return BadDataError(f"The table {table} cannot be read: {fault}. Run the group level again.")


def _older(table: str, column: str) -> BadDataError:
    return BadDataError(
        f"The table {table} has no {column}: another version of hedypet made it. Run the group level again."
    )


def _chosen(
    manifest: Manifest, session: str | None, tracer: str | None, run: str | None
) -> Sequence[ScanEntry]:
    """The scans with these entities.

    Raises
    ------
    MissingInputError
        There is none.
    """
    wanted = {
        key: value.removeprefix(_SELECTORS[key])
        for key, value in (("session", session), ("tracer", tracer), ("run", run))
        if value is not None
    }
    scans = [
        scan
        for scan in manifest.scans
        if all(getattr(scan.name, key) == value for key, value in wanted.items())
    ]
    if not scans:
        asked = ", ".join(f"{key}={value!r}" for key, value in wanted.items())
        there = names.listed(
            str(scan.name) or "one without session, tracer and run" for scan in manifest.scans
        )
        raise MissingInputError(
            f"sub-{manifest.label} has no scan with {asked or 'outputs'}; there is {there}."
        )
    return scans


def _choosing_scan(scans: Iterable[ScanName]) -> list[str]:
    """The arguments that tell scans apart, with their values."""
    scans = list(scans)
    return _choices({key: [getattr(scan, key) for scan in scans] for key in _SELECTORS})


def _choosing_file(files: Sequence[Output], scans: Iterable[ScanName]) -> list[str]:
    """The arguments that tell files apart, with their values: those of the scan, and what the names say."""
    entities = [names.entities_of(Path(file.path).name) for file in files]
    keys = dict.fromkeys(key for each in entities for key in each if key not in _SAID_OTHERWISE)
    owners = {scan for file in files for scan in file.scans}
    by_scan = _choosing_scan(scan for scan in scans if str(scan) in owners)
    return by_scan + _choices({key: [each.get(key, "") for each in entities] for key in keys})


def _choices(values: Mapping[str, Sequence[str]]) -> list[str]:
    different = {key: sorted(set(found)) for key, found in values.items() if len(set(found)) > 1}
    return [f"{key}=" + " or ".join(map(repr, found)) for key, found in different.items()]


def _paths(outputs: Sequence[Output]) -> str:
    return "\n  ".join(sorted({Path(output.path).name for output in outputs})) or "nothing"


def _space_of(kind: Kind) -> str | None:
    """The space of an image; None where it is on its own grid."""
    return str(kind[1]) if kind[0] in ("image", "labels") and len(kind) == 3 else None


def _fits(path: str, wanted: Mapping[str, str]) -> bool:
    """Whether a name has every wanted entity; an empty one must not be there."""
    entities = names.entities_of(Path(path).name)
    return all(entities.get(key, "") == value for key, value in wanted.items())
