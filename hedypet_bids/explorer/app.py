"""The explorer's pages (Streamlit); started by ``hedypet-explorer``, which hands over the output folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from hedypet_bids.errors import HedypetError
from hedypet_bids.explorer.bands import BANDS, Band
from hedypet_bids.explorer.figures import (
    Axis,
    counted,
    curves_figure,
    points_figure,
    sessions_figure,
    value_axis,
    windows_figure,
)
from hedypet_bids.explorer.tables import SCAN_AXES, UPTAKES, Tables
from hedypet_bids.explorer.viewer import HEIGHT_PX, find_images, projections, read_slices, viewer_html
from hedypet_bids.group.rows import INPUT_FUNCTION_IDENTIFIERS
from hedypet_bids.io.tables import as_tsv
from hedypet_bids.names import SCAN_COLUMNS
from hedypet_bids.settings import Settings
from hedypet_bids.study import Study
from hedypet_bids.version import __version__

FIRST_REGIONS = ("brain", "liver", "heart", "aorta")
COLOURS_BY = ("region", "sex", "age group", "split")
KI_AXIS = Axis("Ki", "mL/min/mL")
_CURVE_TABLES = {"regions": "tacs", "input functions": "input_function_tacs"}


# Columns that tell scans apart, with the arguments of Study.readout that choose by them. (No string below it:
# Streamlit would write that on the page.)
_ARGUMENTS = dict(zip(SCAN_AXES, ("sessions", "tracers", "runs", "reconstructions"), strict=True))


@dataclass(frozen=True)
class Chosen:
    """Regions and scans that the user chose."""

    task: str = ""
    labels: tuple[str, ...] = ()
    erosions: tuple[int, ...] = ()
    scans: tuple[tuple[str, tuple[str, ...]], ...] = ()
    varies: tuple[str, ...] = field(default=(), compare=False)

    @property
    def filters(self) -> dict[str, Sequence[object]]:
        """Values to keep, by argument of ``Study.readout``."""
        return {
            "tasks": [self.task],
            "labels": self.labels,
            "erosions": self.erosions,
            **{_ARGUMENTS[axis]: values for axis, values in self.scans},
        }


@st.cache_resource(show_spinner=False)
def tables_of(root: str, changed: float) -> Tables:  # noqa: ARG001 - another time makes another entry
    """The tables of an output folder, until the group level is run again."""
    return Tables(Path(root))


@st.cache_data(show_spinner=False, max_entries=64)
def region_rows(root: str, changed: float, table: str) -> pd.DataFrame:
    """The regions of a table."""
    return tables_of(root, changed).regions(table)


@st.cache_data(show_spinner=False, max_entries=64)
def usual_reconstructions(root: str, changed: float, table: str) -> list[str]:
    """Reconstructions of the images that stand for the scans."""
    found: list[str] = tables_of(root, changed).usual_reconstructions(table)
    return found


@st.cache_data(show_spinner=False, max_entries=64)
def curve_rows(root: str, changed: float, table: str, chosen: Chosen, uptake: str) -> pd.DataFrame:
    """Curves of the chosen regions."""
    return tables_of(root, changed).curves(table, chosen.filters, uptake)


@st.cache_data(show_spinner=False, max_entries=64)
def mean_rows(root: str, changed: float, chosen: Chosen, uptake: str) -> pd.DataFrame:
    """Static means of the chosen regions."""
    return tables_of(root, changed).means(chosen.filters, uptake)


@st.cache_data(show_spinner=False, max_entries=64)
def fits_of(root: str, changed: float) -> pd.DataFrame:
    """The input functions and windows of the Patlak fits."""
    return tables_of(root, changed).fits()


@st.cache_data(show_spinner=False, max_entries=64)
def ki_rows(root: str, changed: float, chosen: Chosen, input_function: str) -> pd.DataFrame:
    """Ki of the chosen regions."""
    return tables_of(root, changed).patlak(chosen.filters, input_function)


@st.cache_data(show_spinner=False, max_entries=64)
def parameters_of(root: str, changed: float) -> pd.DataFrame:
    """What the kinetic models have estimated."""
    return tables_of(root, changed).parameters()


@st.cache_data(show_spinner=False, max_entries=64)
def estimate_rows(root: str, changed: float, chosen: Chosen, model: str, parameter: str) -> pd.DataFrame:
    """A parameter of a kinetic model in the chosen regions."""
    return tables_of(root, changed).estimates(chosen.filters, model, parameter)


@st.cache_data(show_spinner="reading the images", max_entries=4)
def slices_page(images: dict[str, Path], changed: float, suv_constant: float, title: str) -> str:  # noqa: ARG001 - as above
    """The slice viewer of a scan."""
    return viewer_html(read_slices(images, suv_constant), title)


@st.cache_data(show_spinner="reading the images", max_entries=16)
def projection_pictures(
    images: dict[str, Path],
    changed: float,  # noqa: ARG001
    suv_constant: float,
) -> list[tuple[str, np.ndarray]]:
    """Maximum intensity projections of a scan."""
    return projections(images, suv_constant)


def main(root: Path) -> None:
    """The whole page."""
    st.set_page_config(page_title=f"hedypet explorer: {root.name}", layout="wide")
    readouts = root / "readouts"
    changed = readouts.stat().st_mtime if readouts.is_dir() else 0.0
    tables = tables_of(str(root), changed)
    st.title("hedypet explorer")
    for problem in tables.problems:
        st.warning(problem)
    about, curves, means, kinetics, patlak, participants = st.tabs(
        ["About", "Time-activity curves", "Organ means", "Kinetic models", "Patlak windows", "Participants"]
    )
    people = tables.metadata()
    with about:
        show_about(root, tables, people)
    with curves:
        show_curves(root, changed, tables, people)
    with means:
        show_means(root, changed, tables, people)
    with kinetics:
        show_kinetics(root, changed, tables, people)
    with patlak:
        show_patlak(root, changed, tables, people)
    with participants:
        show_participants(tables.study, people)


def show_about(root: Path, tables: Tables, people: pd.DataFrame) -> None:
    """What there is, and where it comes from."""
    n, n_scans = people["Subject"].nunique(), len(people)
    scans = f", {n_scans} scans" if n_scans > n else ""
    people = people.drop_duplicates("Subject")
    st.markdown(
        f"{n} participant{'s' if n != 1 else ''}{scans} in `{root}`, read by hedypet {__version__}. "
        "Everything stays on this computer. The tables are `readouts/*.parquet`; their columns are "
        "described in `readouts/*.json`."
    )
    known = {column: people[column].dropna() for column in ("Age [years]", "Weight [kg]", "Height [m]")}
    rows = [
        {
            "": column,
            "median": values.median(),
            "from": values.min(),
            "to": values.max(),
            "participants": len(values),
        }
        for column, values in known.items()
        if len(values)
    ]
    if rows:
        st.dataframe(pd.DataFrame(rows), hide_index=True)
    sexes = people["sex"].value_counts()
    st.markdown(", ".join(f"{sex}: {count}" for sex, count in sexes.items()))
    if tables.problems:
        st.markdown("What is missing is named above.")


@st.fragment
def show_curves(root: Path, changed: float, tables: Tables, people: pd.DataFrame) -> None:
    """Time-activity curves and input functions."""
    there = [
        name
        for name, table in _CURVE_TABLES.items()
        if tables.has(table) and len(region_rows(str(root), changed, table))
    ]
    if not there:
        st.info(
            "There are no time-activity curves: no participant has dynamic PET, or the group level was not "
            "run."
        )
        return
    left, right = st.columns([1, 3])
    with left:
        what = st.radio("Curves of", there, horizontal=True, key="curves what")
        table = _CURVE_TABLES[what]
        chosen = choose("curves", root, changed, tables, table)
        uptake = st.selectbox("Normalisation", UPTAKES, key="curves normalisation")
        column = choose_colour("curves", chosen, every=True)
        band = choose_band("curves", enabled=column != "scan")
        by_frame = (
            st.radio("Time in", ["minutes", "frame index"], horizontal=True, key="curves time") != "minutes"
        )
        log = st.toggle("Logarithmic uptake axis", key="curves log")
        early = st.toggle("First three minutes", key="curves early", disabled=by_frame)
    rows = with_people(curve_rows(str(root), changed, table, chosen, uptake), people)
    with right:
        if nothing_in(rows):
            return
        figure, shown, notes = curves_figure(
            rows,
            colour_by=column,
            band=band,
            axis=value_axis(uptake),
            by_frame=by_frame,
            log=log,
            early=early,
        )
        for note in dict.fromkeys(notes):
            st.warning(note)
        if column != "scan":
            st.caption(said_of(band, rows, column))
        show(figure, "curves")
        download(shown, "curves")


@st.fragment
def show_means(root: Path, changed: float, tables: Tables, people: pd.DataFrame) -> None:
    """Static means of the regions, a point a scan."""
    regions = region_rows(str(root), changed, "means")
    if regions.empty:
        st.info("There are no organ means: no participant has static PET, or the group level was not run.")
        return
    left, right = st.columns([1, 3])
    with left:
        chosen = choose("means", root, changed, tables, "means")
        uptake = st.selectbox("Normalisation", UPTAKES, key="means normalisation")
        over_sessions = choose_across("means", chosen)
        column = "region" if over_sessions else choose_colour("means", chosen)
    rows = with_people(mean_rows(str(root), changed, chosen, uptake), people)
    with right:
        if nothing_in(rows):
            return
        show(scans_figure(rows, column, value_axis(uptake), over_sessions=over_sessions), "means")
        download(rows, "means")


@st.fragment
def show_kinetics(root: Path, changed: float, tables: Tables, people: pd.DataFrame) -> None:
    """A parameter of a kinetic model, a point a scan."""
    parameters = parameters_of(str(root), changed)
    if parameters.empty:
        st.info("There are no kinetic parameters: no model was fitted, or the group level was not run.")
        return
    left, right = st.columns([1, 3])
    with left:
        chosen = choose("kinetics", root, changed, tables, "kinetics")
        model = st.selectbox("Model", list(parameters["Model"].unique()), key="kinetics model")
        of_model = parameters[parameters["Model"] == model].set_index("Parameter")["Units"]
        parameter = st.selectbox(
            "Parameter", list(of_model.index.unique()), key=f"kinetics parameter {model}"
        )
        over_sessions = choose_across("kinetics", chosen)
        column = "region" if over_sessions else choose_colour("kinetics", chosen)
    rows = with_people(estimate_rows(str(root), changed, chosen, model, parameter), people)
    with right:
        if nothing_in(rows):
            return
        axis = Axis(f"{model} {parameter}", of_model.groupby(level=0).first()[parameter])
        show(scans_figure(rows, column, axis, over_sessions=over_sessions), "kinetics")
        download(rows, "kinetics")


@st.fragment
def show_patlak(root: Path, changed: float, tables: Tables, people: pd.DataFrame) -> None:
    """Ki of the regions, and how it depends on the frames of the fit."""
    regions = region_rows(str(root), changed, "patlak_ki")
    if regions.empty:
        st.info(
            "There is no Patlak Ki: no participant has an input function, or the group level was not run."
        )
        return
    settings = Settings().kinetics
    fits = fits_of(str(root), changed)
    functions = sorted(fits["Input Function Identifier"].unique())
    windows = sorted(int(window) for window in fits["Regression Frames"].unique())
    usual, usual_window = (
        INPUT_FUNCTION_IDENTIFIERS.get(settings.map_input_function, ""),
        settings.patlak.map_last_frames,
    )
    left, right = st.columns([1, 3])
    with left:
        chosen = choose("patlak", root, changed, tables, "patlak_ki")
        function = st.selectbox(
            "Input function",
            functions,
            index=functions.index(usual) if usual in functions else 0,
            key="patlak input",
        )
        window = st.select_slider(
            "Last frames in the fit",
            windows,
            value=usual_window if usual_window in windows else windows[-1],
            key="patlak window",
        )
        over_sessions = choose_across("patlak", chosen)
        column = choose_colour("patlak", chosen)
        band = choose_band("patlak", enabled=True)
    rows = with_people(ki_rows(str(root), changed, chosen, function), people)
    with right:
        if nothing_in(rows):
            return
        of_window = rows[rows["Regression Frames"] == window]
        show(scans_figure(of_window, column, KI_AXIS, over_sessions=over_sessions), "patlak")
        download(of_window, "patlak")
        st.subheader("Ki against the frames of the fit")
        st.caption(said_of(band, rows, column))
        figure, shown = windows_figure(rows, colour_by=column, band=band, axis=KI_AXIS)
        show(figure, "patlak windows")
        download(shown, "patlak windows")


@st.fragment
def show_participants(study: Study, people: pd.DataFrame) -> None:
    """One scan of a participant: what is known of it, report, projections and slices."""
    if people.empty:
        st.info("This output has no participants.")
        return
    subject = st.selectbox("Participant", list(people["Subject"].unique()), key="participant")
    scans = people[people["Subject"] == subject].set_index("scan")
    scan = scans.index[0]
    if len(scans) > 1:
        scan = st.selectbox("Scan", list(scans.index), key=f"scan {subject}")
    row = scans.loc[scan]
    facts = {
        name: row[name]
        for name in ("Sex", "Age [years]", "Weight [kg]", "Height [m]", "Injected Activity [MBq]", "Missing")
        if pd.notna(row[name])
    }
    st.markdown(
        ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in facts.items()
        )
        or "Nothing is known about this participant."
    )
    try:
        outputs = study.outputs(subject, session=row["Session"], tracer=row["Tracer"], run=row["Run"])
    except HedypetError as error:
        st.warning(str(error))
        return
    show_report(outputs.get("page"))
    constant = row["SUV Denominator [Bq/mL]"]
    constant = float(constant) if pd.notna(constant) else float("nan")
    images = find_images(outputs)
    if not images:
        st.info("This scan has no image in the static PET's space.")
        return
    try:
        changed = max(path.stat().st_mtime for path in images.values())
        pictures = projection_pictures(images, changed, constant)
        page = slices_page(images, changed, constant, scan)
    except (HedypetError, OSError) as error:
        st.warning(str(error))
        return
    left, right = st.columns([1, 2])
    with left:
        for name, picture in pictures:
            st.image(picture, caption=f"{name} maximum intensity projection of the static PET, SUV 0 to 10")
    with right:
        st.subheader("PET over CT")
        st.iframe(page, height=HEIGHT_PX)


def show_report(page: Path | None) -> None:
    """The report of a scan: browsers follow no link from here to a file, so it is handed over."""
    if page is None or not page.is_file():
        st.info("This scan has no report.")
        return
    left, right = st.columns([1, 3])
    left.download_button("Save the report", page.read_bytes(), page.name, "text/html", key="report")
    right.markdown(f"The report is `{page}`.")
    if st.toggle("Show the report here", key="report here"):
        st.iframe(page.read_text("utf-8"), height=900)


def choose(key: str, root: Path, changed: float, tables: Tables, table: str) -> Chosen:
    """Scans (where there is a choice), task, regions and erosions."""
    regions = region_rows(str(root), changed, table)
    scans: list[tuple[str, tuple[str, ...]]] = []
    for axis in SCAN_AXES:
        there = sorted(regions[axis].unique())
        if len(there) < 2:
            continue
        first = there
        if axis == "Tracer":  # a mean over several tracers or reconstructions says little
            first = there[:1]
        elif axis == "Reconstruction":
            usual = usual_reconstructions(str(root), changed, table)
            first = [*(rec for rec in usual if rec in there), *there][:1]
        picked = st.multiselect(
            axis, there, default=first, format_func=lambda value: value or "none", key=f"{key} {axis} {there}"
        )
        scans.append((axis, tuple(picked)))
        regions = regions[regions[axis].isin(picked)]
    if regions.empty:
        return Chosen(scans=tuple(scans))
    levels = tables.tasks(table)
    tasks = sorted(regions["Task"].unique(), key=lambda task: (task != "ts_total", task))
    task = st.selectbox(
        "Segmentation", tasks, format_func=lambda task: levels.get(task, task), key=f"{key} task"
    )
    of_task = regions[regions["Task"] == task]
    labels = sorted(of_task["Label Name"].unique())
    first = [label for label in FIRST_REGIONS if label in labels] or labels[:2]
    chosen = st.multiselect("Regions", labels, default=first, key=f"{key} regions {task}")
    erosions = sorted(int(erosion) for erosion in of_task["Erosion Iterations"].unique())
    eroded = st.multiselect(
        "Erosions by one voxel", erosions, default=erosions[:1], key=f"{key} erosions {task}"
    )
    varies = tuple(axis for axis in SCAN_AXES if of_task[axis].nunique() > 1)
    return Chosen(task, tuple(chosen), tuple(eroded), tuple(scans), varies)


def choose_colour(key: str, chosen: Chosen, *, every: bool = False) -> str:
    """The column that colours stand for: sessions first where there are several."""
    columns: dict[str, str] = {name: name for name in COLOURS_BY} | {
        axis.lower(): axis for axis in chosen.varies
    }
    if every:
        columns["every scan" if chosen.varies else "every participant"] = "scan"
    colour = st.selectbox(
        "Colour by",
        list(columns),
        index=list(columns).index("session") if "session" in columns else 0,
        key=f"{key} colour {chosen.varies}",
    )
    return columns[colour]


def choose_across(key: str, chosen: Chosen) -> bool:
    """Whether sessions are the horizontal axis; asked where there are several."""
    if "Session" not in chosen.varies:
        return False
    axis = st.radio("Horizontal axis", ["region", "session"], horizontal=True, key=f"{key} across")
    return bool(axis == "session")


def scans_figure(rows: pd.DataFrame, column: str, axis: Axis, *, over_sessions: bool) -> go.Figure:
    """Every scan as a point: a column a region, or a line a participant over the sessions."""
    if over_sessions:
        return sessions_figure(rows, axis=axis)
    return points_figure(rows, colour_by=column, axis=axis)


def choose_band(key: str, *, enabled: bool) -> Band:
    """How the spread of the participants is shown."""
    band: Band = st.selectbox("Band around the mean", BANDS, index=1, key=f"{key} band", disabled=not enabled)
    return band


def said_of(band: Band, rows: pd.DataFrame, column: str) -> str:
    """What a mean and its band are, in a sentence or two."""
    of = counted(rows, column)
    said = {
        "none": f"Means over the {of}.",
        "SD": f"Means over the {of}; the band is one standard deviation to each side.",
        "95 % CI of the mean": f"Means over the {of}; the band holds the mean with 95 % confidence.",
        "95 % prediction": f"Means over the {of}; with 95 % probability the band holds another one.",
    }[band]
    several = "Several scans of a participant in one curve count as if they were independent."
    return f"{said} {several}" if of == "scans" else said


def with_people(rows: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Table rows with sex, age group and split of their participant."""
    keys = list(SCAN_COLUMNS)
    return rows.merge(people[[*keys, "sex", "age group", "split", "Age [years]"]], on=keys, how="left")


def nothing_in(rows: pd.DataFrame) -> bool:
    """Whether there is nothing to draw; says so."""
    if rows.empty:
        st.info("Choose at least one region and one erosion, and at least one of each choice of scans.")
    elif not np.isfinite(rows["value"].to_numpy(dtype=np.float64, na_value=np.nan)).any():
        st.info("None of the values is known: see the column Missing of the table metadata.")
    else:
        return False
    return True


def show(figure: go.Figure, name: str) -> None:
    """A figure, with buttons that save it as a picture."""
    options = {"format": "svg", "filename": name.replace(" ", "-")}
    st.plotly_chart(
        figure, key=f"{name} figure", config={"displaylogo": False, "toImageButtonOptions": options}
    )


def download(rows: pd.DataFrame, name: str) -> None:
    """A button that saves what is shown as TSV."""
    file = f"{name.replace(' ', '-')}.tsv"
    st.download_button("Save these numbers (TSV)", as_tsv(rows), file, key=f"{name} tsv")


def run_explorer(arguments: Sequence[str]) -> None:
    """Start the page for a command line."""
    main(Path(arguments[0]))


if __name__ == "__main__":
    run_explorer(sys.argv[1:])
