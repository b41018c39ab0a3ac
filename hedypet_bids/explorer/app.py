"""The explorer's pages (Streamlit); started by ``hedypet-explorer``, which hands over the output folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from hedypet_bids.errors import HedypetError
from hedypet_bids.explorer.bands import BANDS, Band
from hedypet_bids.explorer.figures import Axis, curves_figure, points_figure, value_axis, windows_figure
from hedypet_bids.explorer.tables import NORMALISATIONS, Tables
from hedypet_bids.explorer.viewer import HEIGHT_PX, find_images, projections, read_slices, viewer_html
from hedypet_bids.group.dictionary import COLUMNS
from hedypet_bids.group.rows import INPUT_FUNCTION_IDENTIFIERS
from hedypet_bids.settings import KineticsSettings
from hedypet_bids.version import __version__

FIRST_REGIONS = ("brain", "liver", "heart", "aorta")
COLOURS_BY = {"region": "region", "sex": "sex", "age group": "age group", "split": "split"}
EVERYONE = "every participant"
KI_AXIS = Axis("Ki", "mL/min/mL")
_CURVE_TABLES = {"regions": "tacs", "input functions": "input_function_tacs"}


@dataclass(frozen=True)
class Chosen:
    """Regions that the user chose."""

    task: str
    labels: tuple[str, ...]
    erosions: tuple[int, ...]


@st.cache_resource(show_spinner=False)
def tables_of(root: str, changed: float) -> Tables:  # noqa: ARG001 - another time makes another entry
    """The tables of an output folder, until the group level is run again."""
    return Tables(Path(root))


@st.cache_data(show_spinner=False, max_entries=64)
def regions_of(root: str, changed: float, table: str) -> pd.DataFrame:
    """The regions of a table."""
    return tables_of(root, changed).regions(table)


@st.cache_data(show_spinner=False, max_entries=64)
def curve_rows(root: str, changed: float, table: str, chosen: Chosen, normalisation: str) -> pd.DataFrame:
    """Curves of the chosen regions."""
    tables = tables_of(root, changed)
    return tables.curves(table, chosen.task, chosen.labels, chosen.erosions, normalisation)


@st.cache_data(show_spinner=False, max_entries=64)
def mean_rows(root: str, changed: float, chosen: Chosen, normalisation: str) -> pd.DataFrame:
    """Static means of the chosen regions."""
    return tables_of(root, changed).means(chosen.task, chosen.labels, chosen.erosions, normalisation)


@st.cache_data(show_spinner=False, max_entries=64)
def ki_rows(
    root: str, changed: float, chosen: Chosen, input_function: str, windows: tuple[int, ...]
) -> pd.DataFrame:
    """Ki of the chosen regions."""
    tables = tables_of(root, changed)
    return tables.patlak(chosen.task, chosen.labels, chosen.erosions, input_function, windows)


@st.cache_data(show_spinner="reading the images", max_entries=4)
def slices_page(folder: str, changed: float, suv_constant: float) -> str:  # noqa: ARG001 - as above
    """The slice viewer of a participant."""
    return viewer_html(read_slices(find_images(Path(folder)), suv_constant), Path(folder).name)


@st.cache_data(show_spinner="reading the images", max_entries=16)
def projection_pictures(folder: str, changed: float, suv_constant: float) -> list[tuple[str, np.ndarray]]:  # noqa: ARG001
    """Maximum intensity projections of a participant."""
    return projections(find_images(Path(folder)), suv_constant)


def main(root: Path) -> None:
    """The whole page."""
    st.set_page_config(page_title=f"hedypet explorer: {root.name}", layout="wide")
    readouts = root / "readouts"
    changed = readouts.stat().st_mtime if readouts.is_dir() else 0.0
    tables = tables_of(str(root), changed)
    st.title("hedypet explorer")
    for problem in tables.problems:
        st.warning(problem)
    about, curves, means, patlak, participants = st.tabs(
        ["About", "Time-activity curves", "Organ means", "Patlak", "Participants"]
    )
    people = tables.metadata()
    with about:
        show_about(root, tables, people)
    with curves:
        show_curves(root, changed, tables, people)
    with means:
        show_means(root, changed, people)
    with patlak:
        show_patlak(root, changed, tables, people)
    with participants:
        show_participants(root, people)


def show_about(root: Path, tables: Tables, people: pd.DataFrame) -> None:
    """What there is, and where it comes from."""
    n = len(people)
    st.markdown(
        f"{n} participant{'s' if n != 1 else ''} in `{root}`, read by hedypet {__version__}. "
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
        if tables.has(table) and len(regions_of(str(root), changed, table))
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
        chosen = choose_regions("curves", regions_of(str(root), changed, table))
        normalisation = st.selectbox("Normalisation", NORMALISATIONS, key="curves normalisation")
        colour_by = st.selectbox("Colour by", [*COLOURS_BY, EVERYONE], key="curves colour")
        band = choose_band("curves", enabled=colour_by != EVERYONE)
        by_frame = (
            st.radio("Time in", ["minutes", "frame index"], horizontal=True, key="curves time") != "minutes"
        )
        log = st.toggle("Logarithmic uptake axis", key="curves log")
        early = st.toggle("First three minutes", key="curves early", disabled=by_frame)
    rows = with_people(curve_rows(str(root), changed, table, chosen, normalisation), people)
    with right:
        if nothing_in(rows):
            return
        column = "Subject" if colour_by == EVERYONE else COLOURS_BY[colour_by]
        figure, shown, notes = curves_figure(
            rows,
            colour_by=column,
            band=band,
            axis=value_axis(normalisation),
            by_frame=by_frame,
            log=log,
            early=early,
        )
        for note in dict.fromkeys(notes):
            st.warning(note)
        if column != "Subject":
            st.caption(said_of(band))
        show(figure, "curves")
        download(shown, "curves")


@st.fragment
def show_means(root: Path, changed: float, people: pd.DataFrame) -> None:
    """Static means of the regions, a point a participant."""
    regions = regions_of(str(root), changed, "means")
    if regions.empty:
        st.info("There are no organ means: no participant has static PET, or the group level was not run.")
        return
    left, right = st.columns([1, 3])
    with left:
        chosen = choose_regions("means", regions)
        normalisation = st.selectbox("Normalisation", NORMALISATIONS, key="means normalisation")
        colour_by = st.selectbox("Colour by", [*COLOURS_BY], key="means colour")
    rows = with_people(mean_rows(str(root), changed, chosen, normalisation), people)
    with right:
        if nothing_in(rows):
            return
        show(points_figure(rows, colour_by=COLOURS_BY[colour_by], axis=value_axis(normalisation)), "means")
        download(rows, "means")


@st.fragment
def show_patlak(root: Path, changed: float, tables: Tables, people: pd.DataFrame) -> None:
    """Ki of the regions, and how it depends on the frames of the fit."""
    regions = regions_of(str(root), changed, "patlak_ki")
    if regions.empty:
        st.info(
            "There is no Patlak Ki: no participant has an input function, or the group level was not run."
        )
        return
    settings = KineticsSettings()
    functions, windows = tables.input_functions(), tables.windows()
    usual = INPUT_FUNCTION_IDENTIFIERS.get(settings.map_input_function, "")
    usual_window = settings.patlak.map_last_frames
    left, right = st.columns([1, 3])
    with left:
        chosen = choose_regions("patlak", regions)
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
        colour_by = st.selectbox("Colour by", [*COLOURS_BY], key="patlak colour")
        band = choose_band("patlak", enabled=True)
    column = COLOURS_BY[colour_by]
    rows = with_people(ki_rows(str(root), changed, chosen, function, tuple(windows)), people)
    with right:
        if nothing_in(rows):
            return
        of_window = rows[rows["Regression Frames"] == window]
        show(points_figure(of_window, colour_by=column, axis=KI_AXIS), "patlak")
        download(of_window, "patlak")
        st.subheader("Ki against the frames of the fit")
        st.caption(said_of(band))
        figure, shown = windows_figure(rows, colour_by=column, band=band, axis=KI_AXIS)
        show(figure, "patlak windows")
        download(shown, "patlak windows")


@st.fragment
def show_participants(root: Path, people: pd.DataFrame) -> None:
    """One participant: facts, report, projections and slices."""
    if people.empty:
        st.info("There is no participant in this output.")
        return
    subject = st.selectbox("Participant", list(people["Subject"]), key="participant")
    row = people.set_index("Subject").loc[subject]
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
        or "Nothing is known of this participant."
    )
    show_report(root / f"{subject}.html")
    constant = row["SUV Denominator [Bq/mL]"]
    constant = float(constant) if pd.notna(constant) else float("nan")
    folder = root / subject
    images = find_images(folder)
    if not images:
        st.info("This participant has no image in the static PET's space.")
        return
    changed = max(path.stat().st_mtime for path in images.values())
    try:
        pictures = projection_pictures(str(folder), changed, constant)
        page = slices_page(str(folder), changed, constant)
    except HedypetError as error:
        st.warning(str(error))
        return
    left, right = st.columns([1, 2])
    with left:
        for name, picture in pictures:
            st.image(picture, caption=f"{name} maximum intensity projection of the static PET, SUV 0 to 10")
    with right:
        st.subheader("PET over CT")
        st.iframe(page, height=HEIGHT_PX)


def show_report(page: Path) -> None:
    """The participant's report: browsers follow no link from here to a file, so it is handed over."""
    if not page.is_file():
        st.info(f"There is no report {page.name}.")
        return
    left, right = st.columns([1, 3])
    left.download_button("Save the report", page.read_bytes(), page.name, "text/html", key="report")
    right.markdown(f"The report is `{page}`.")
    if st.toggle("Show the report here", key="report here"):
        st.iframe(page.read_text("utf-8"), height=900)


def choose_regions(key: str, regions: pd.DataFrame) -> Chosen:
    """Task, regions and erosions."""
    levels = COLUMNS["Task"].levels or {}
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
    return Chosen(task, tuple(chosen), tuple(eroded))


def choose_band(key: str, *, enabled: bool) -> Band:
    """How the spread of the participants is shown."""
    band: Band = st.selectbox("Band around the mean", BANDS, index=1, key=f"{key} band", disabled=not enabled)
    return band


def said_of(band: Band) -> str:
    """What a band is, in a sentence."""
    return {
        "none": "Means over the participants.",
        "SD": "Means over the participants; the band is one standard deviation to each side.",
        "95 % CI of the mean": "Means over the participants; the band holds the mean with 95 % confidence.",
        "95 % prediction": "Means over the participants; with 95 % probability the band holds another one.",
    }[band]


def with_people(rows: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Table rows with sex, age group and split of their participant, and the region as one column."""
    return rows.merge(
        people[["Subject", "sex", "age group", "split", "Age [years]"]], on="Subject", how="left"
    )


def nothing_in(rows: pd.DataFrame) -> bool:
    """Whether there is nothing to draw; says so."""
    if rows.empty:
        st.info("Choose at least one region and one erosion.")
    elif not np.isfinite(rows["value"].to_numpy(dtype=np.float64, na_value=np.nan)).any():
        st.info("None of the values is known: look at the column Missing of the table metadata.")
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
    text = rows.to_csv(sep="\t", index=False, na_rep="n/a")
    st.download_button("Save these numbers (TSV)", text, f"{name.replace(' ', '-')}.tsv", key=f"{name} tsv")


def run(arguments: Sequence[str]) -> None:
    """Start the page for a command line."""
    main(Path(arguments[0]))


if __name__ == "__main__":
    run(sys.argv[1:])
