"""The explorer: its statistics, its queries, and its pages in a real browser."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from browser import Browser, chromium
from explorer_process import explorer
from hypothesis import given
from hypothesis import strategies as st
from running import ROOT, Run, only
from scans_output import CONSTANT, KI, LIVER, RETEST, TEST, write_scans_output
from scipy import stats
from streamlit.testing.v1 import AppTest

from hedypet_bids.cli.explorer import INSTALL, main
from hedypet_bids.explorer.bands import mean_and_half_width
from hedypet_bids.explorer.figures import (
    Axis,
    counted,
    curves_figure,
    points_figure,
    sessions_figure,
    value_axis,
)
from hedypet_bids.explorer.tables import Tables, wide
from hedypet_bids.explorer.viewer import find_images, projections, read_slices
from hedypet_bids.io.manifest import Manifest

APP = ROOT / "hedypet_bids" / "explorer" / "app.py"


@pytest.fixture(scope="module")
def output(phantom_run: Run) -> Path:
    """Both levels of the phantom: participant 001 complete, 002 with a static PET only."""
    return phantom_run.output


# ---- statistics


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_bands_are_those_of_the_textbook(values: list[float]) -> None:
    column = np.array(values)[:, np.newaxis]
    n, sd = len(values), float(np.std(values, ddof=1))
    mean, half, counted = mean_and_half_width(column, "SD")
    assert mean[0] == pytest.approx(np.mean(values), abs=1e-9) and counted[0] == n
    assert half[0] == pytest.approx(sd, abs=1e-9)
    _, half, _ = mean_and_half_width(column, "95 % CI of the mean")
    if sd > 1e-6:
        low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert half[0] == pytest.approx((high - low) / 2, rel=1e-9)
        _, wider, _ = mean_and_half_width(column, "95 % prediction")
        assert wider[0] == pytest.approx(half[0] * np.sqrt(n + 1), rel=1e-9)


def test_a_prediction_interval_holds_another_value_in_95_of_100_cases() -> None:
    draws = np.random.default_rng(1).normal(3.0, 2.0, size=(6, 20_000))
    mean, half, _ = mean_and_half_width(draws[:5], "95 % prediction")
    assert (np.abs(draws[5] - mean) <= half).mean() == pytest.approx(0.95, abs=0.005)


def test_what_is_missing_is_left_out_and_one_value_has_no_spread() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan], [np.inf, np.nan, np.nan]])
    mean, half, n = mean_and_half_width(values, "SD")
    np.testing.assert_array_equal(n, [2, 1, 0])
    np.testing.assert_allclose(mean, [2.0, 5.0, np.nan])
    np.testing.assert_allclose(half, [np.sqrt(2.0), np.nan, np.nan])


# ---- queries


def regions(task: str, labels: list[str], erosions: list[int]) -> dict[str, list]:
    """What is asked of a table, as Study.readout takes it."""
    return {"tasks": [task], "labels": labels, "erosions": erosions}


def test_values_are_those_of_the_tables(output: Path) -> None:
    tables = Tables(output)
    assert tables.problems == []
    means = pd.read_csv(output / "readouts/means.tsv.gz", sep="\t", na_values="n/a")
    people = pd.read_csv(output / "readouts/metadata.tsv.gz", sep="\t", na_values="n/a").set_index("Subject")
    for normalisation, column in (
        ("SUV", "SUV Denominator [Bq/mL]"),
        ("SUL James", "SUL James Denominator [Bq/mL]"),
    ):
        rows = tables.means(regions("ts_total", ["liver", "brain"], [1]), normalisation)
        expected = means[
            (means["Task"] == "ts_total")
            & means["Label Name"].isin(["liver", "brain"])
            & (means["Erosion Iterations"] == 1)
        ]
        assert len(rows) == len(expected) == 4
        merged = rows.merge(expected, on=["Subject", "Label Name"])
        constants = people[column].reindex(merged["Subject"]).to_numpy()
        np.testing.assert_allclose(merged["value"], merged["PET Mean [Bq/mL]_y"] / constants, rtol=1e-12)
    curves = tables.curves("tacs", regions("ts_total", ["liver"], [0]), "activity")
    own = pd.read_csv(only(output / "sub-001", "*_rec-acdynPSF_seg-total_tacs.tsv"), sep="\t")
    assert set(curves["Subject"]) == {"sub-001"}
    matrix, minutes = wide(curves, "minutes")
    np.testing.assert_allclose(matrix[0] * 1000, own["liver"], rtol=1e-12)
    np.testing.assert_allclose(minutes, (own["frame_start"] + own["frame_end"]) / 120)
    fits = tables.fits()
    assert sorted(fits["Regression Frames"].unique()) == [2, 3, 4, 5, 6, 7, 8]
    assert fits["Input Function Identifier"].nunique() == 13


def test_a_partitioned_table_gives_the_same(output: Path, tmp_path: Path) -> None:
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    shutil.copy(output / "dataset_description.json", tmp_path)
    copy = Path(shutil.copytree(output / "readouts", tmp_path / "readouts"))
    rows = pq.read_table(copy / "means.parquet")
    (copy / "means.parquet").unlink()
    partitioning = ds.partitioning(rows.select(["Subject"]).schema, flavor="hive")
    ds.write_dataset(rows, copy / "means.parquet", format="parquet", partitioning=partitioning)
    asked = (regions("ts_total", ["liver"], [0, 1]), "SUV")
    key = ["Subject", "Erosion Iterations"]
    got, expected = (Tables(root).means(*asked).sort_values(key) for root in (tmp_path, output))
    pd.testing.assert_frame_equal(
        got.reset_index(drop=True), expected.reset_index(drop=True), check_dtype=False
    )
    keys = ["Task", "Label Name", "Erosion Iterations"]
    known = [Tables(root).regions("means").sort_values(keys) for root in (tmp_path, output)]
    pd.testing.assert_frame_equal(*[rows.reset_index(drop=True) for rows in known], check_dtype=False)


def test_names_with_quotes_reach_no_other_query(output: Path) -> None:
    assert Tables(output).means(regions("ts_total", ["liver' OR '1'='1"], [0]), "SUV").empty


def test_missing_and_foreign_tables_are_named(output: Path, tmp_path: Path) -> None:
    shutil.copy(output / "dataset_description.json", tmp_path)
    copy = Path(shutil.copytree(output / "readouts", tmp_path / "readouts"))
    for extension in (".parquet", ".json", ".tsv.gz"):
        (copy / f"tacs{extension}").unlink()
    (copy / "means.parquet").write_bytes(b"no table")
    shutil.copy(copy / "outliers.parquet", copy / "patlak_ki.parquet")
    tables = Tables(tmp_path)
    said = "\n".join(tables.problems)
    assert "table tacs is missing" in said
    assert "table means cannot be read" in said
    assert "patlak_ki has no" in said
    assert tables.regions("tacs").empty and tables.means(regions("ts_total", ["liver"], [0]), "SUV").empty
    assert tables.fits().empty


# ---- figures


def test_hover_and_bands_carry_the_values() -> None:
    rows = pd.DataFrame(
        {
            "Subject": ["sub-1", "sub-2"] * 2,
            "scan": ["sub-1", "sub-2"] * 2,
            "Label Name": "liver",
            "Erosion Iterations": 0,
            "Frame Index": [0, 0, 1, 1],
            "minutes": [1.0, 1.0, 2.0, 2.0],
            "value": [1.0, 3.0, 2.0, 6.0],
            "sex": ["female", "male"] * 2,
        }
    )
    figure, shown, notes = curves_figure(rows, colour_by="region", band="SD", axis=Axis("SUV", "g/mL"))
    assert notes == []
    outline, line = figure.data
    np.testing.assert_allclose(line.y, [2.0, 4.0])
    np.testing.assert_allclose(outline.y, [2 + np.sqrt(2), 4 + np.sqrt(8), 4 - np.sqrt(8), 2 - np.sqrt(2)])
    assert "g/mL" in line.hovertemplate and list(shown["participants"]) == [2, 2]
    assert figure.layout.xaxis.title.text == "time after injection [min]"
    by_sex, _, _ = curves_figure(rows, colour_by="sex", band="none", axis=value_axis("activity"))
    assert [trace.name for trace in by_sex.data] == ["liver, female", "liver, male"]
    assert by_sex.layout.yaxis.title.text == "activity concentration [kBq/mL]"
    # Frames at other times have no common mean in minutes; by index they have.
    rows.loc[1, "minutes"] = 1.5
    figure, _, notes = curves_figure(rows, colour_by="region", band="SD", axis=value_axis("SUV"))
    assert "frame index" in notes[0] and len(figure.data[-1].x) == 1
    figure, _, notes = curves_figure(
        rows, colour_by="region", band="SD", axis=value_axis("SUV"), by_frame=True
    )
    assert notes == [] and list(figure.data[-1].x) == [0, 1]
    points = points_figure(rows[rows["Frame Index"] == 0], colour_by="sex", axis=value_axis("SUV"))
    assert {trace.name: list(trace.y) for trace in points.data} == {"female": [1.0], "male": [3.0]}


# ---- images


def test_slices_and_projections_are_those_of_the_images(output: Path) -> None:
    manifest = Manifest.read(output, "001")
    found = find_images(manifest.of_scan(manifest.scans[0]))
    images = {kind: output / path for kind, path in found.items()}
    assert set(images) == {"pet", "ct", "labels"} and "br38f" in images["ct"].name
    slices = read_slices(images, 3000.0)
    pet = nib.as_closest_canonical(nib.load(images["pet"])).get_fdata()
    np.testing.assert_allclose(slices.pet, np.clip(pet / 30000, 0, 1) * 255, atol=1)
    labels = nib.as_closest_canonical(nib.load(images["labels"])).get_fdata()
    np.testing.assert_array_equal(slices.labels, labels)
    (_, coronal), (_, sagittal) = projections(images, 3000.0)
    # Isotropic voxels: a pixel each, head up, patient's left at the left.
    np.testing.assert_allclose(
        255 - coronal[::-1].T.astype(int), np.clip(pet.max(axis=1) / 30000, 0, 1) * 255, atol=1
    )
    assert sagittal.shape == (pet.shape[2], pet.shape[1])


# ---- the pages without a browser


def page(output: Path) -> AppTest:
    app = AppTest.from_string(
        f"from pathlib import Path\nfrom hedypet_bids.explorer.app import main\nmain(Path({str(output)!r}))",
        default_timeout=60,
    )
    return app.run()


def test_every_tab_shows_something(output: Path) -> None:
    app = page(output)
    assert not app.exception
    assert [tab.label for tab in app.tabs] == [
        *("About", "Time-activity curves", "Organ means", "Kinetic models", "Patlak windows", "Participants")
    ]
    assert not app.warning and not app.info


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda root: shutil.rmtree(root / "readouts"), "run hedypet with 'group'"),
        (lambda root: (root / "readouts/tacs.parquet").unlink(), "table tacs is missing"),
        (lambda root: (root / "readouts/metadata.parquet").unlink(), "table metadata is missing"),
        (lambda root: [shutil.rmtree(p) for p in root.glob("sub-*") if p.is_dir()], ""),
    ],
    ids=["no group level", "no curves", "no metadata", "no images"],
)
def test_gaps_are_said_and_the_page_opens(break_it, said: str, output: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    shutil.copytree(output, root, copy_function=lambda a, b: Path(b).hardlink_to(a))
    break_it(root)
    app = page(root)
    assert not app.exception, app.exception
    assert said in "\n".join(warning.value for warning in app.warning)
    assert len(app.tabs) == 6


def test_a_folder_that_is_no_output_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 66
    assert "dataset_description.json" in capsys.readouterr().err


def test_an_installation_without_the_explorer_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the container image, which has the program but not its packages."""
    (tmp_path / "dataset_description.json").write_text("{}")
    monkeypatch.setattr("hedypet_bids.cli.explorer.find_spec", lambda _: None)
    assert main([str(tmp_path)]) == 127
    said = capsys.readouterr().err
    assert f"needs streamlit, plotly; install them with {INSTALL} in the folder" in said
    assert INSTALL in (ROOT / "docs" / "explorer.md").read_text("utf-8")


# ---- several scans


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Participant 01 with the sessions test and retest, 02 with test; two static reconstructions."""
    return write_scans_output(tmp_path_factory.mktemp("scans") / "out")


def test_rows_are_of_scans_and_normalised_by_their_constants(scans: Path) -> None:
    tables = Tables(scans)
    assert tables.problems == []
    chosen = {**regions("ts_total", ["liver"], [0]), "reconstructions": ["acPSF"]}
    rows = tables.means(chosen, "SUV").set_index("scan")
    expected = {
        f"sub-{label} {scan.session}": LIVER[label, scan] / CONSTANT[label, scan] for label, scan in LIVER
    }
    assert rows["value"].to_dict() == expected
    assert counted(rows.reset_index(), "region") == counted(rows.reset_index(), "Tracer") == "scans"
    assert counted(rows.reset_index(), "Session") == counted(rows.reset_index(), "scan") == "participants"
    one = tables.means({**chosen, "sessions": ["test"]}, "SUV")
    assert one["scan"].tolist() == ["sub-01", "sub-02"] and counted(one, "region") == "participants"
    assert tables.usual_reconstructions("means") == ["acPSF"]
    assert tables.usual_reconstructions("tacs") == ["dyn"]
    # A curve a scan, not a mean over the scans of a participant.
    curves = tables.curves("tacs", regions("ts_total", ["liver"], [0]), "activity")
    matrix, minutes = wide(curves, "minutes")
    np.testing.assert_allclose(
        matrix[:, 1] * 1000, [LIVER["01", RETEST], LIVER["01", TEST], LIVER["02", TEST]]
    )
    np.testing.assert_allclose(minutes, [0.5, 1.5, 2.5])


def test_sessions_are_joined_by_a_line_a_participant(scans: Path) -> None:
    chosen = {**regions("ts_total", ["liver", "brain"], [0]), "reconstructions": ["acPSF"]}
    figure = sessions_figure(Tables(scans).means(chosen, "activity"), axis=value_axis("activity"))
    brain, liver = figure.data
    assert (brain.name, liver.name) == ("brain", "liver")
    assert list(liver.x) == ["retest", "test", None, "test", None]
    assert list(liver.y) == [6.0, 4.0, None, 3.0, None]
    assert list(brain.y) == [12.0, 8.0, None, 6.0, None]


def test_scans_can_be_chosen_where_there_are_several(scans: Path) -> None:
    app = page(scans)
    assert not app.exception and not app.warning and not app.info
    choices = {choice.label: choice.value for choice in app.multiselect}
    assert choices["Session"] == ["retest", "test"]
    assert choices["Reconstruction"] == ["acPSF"]
    assert {"Tracer", "Run"}.isdisjoint(choices)
    assert "2 participants, 3 scans" in app.markdown[0].value
    assert [box.value for box in app.selectbox if box.label == "Colour by"] == ["session"] * 4
    app.radio(key="means across").set_value("session").run()
    assert not app.exception
    for choice in app.multiselect:
        if choice.label == "Session":
            choice.set_value(["test"])
    app.run()
    assert not app.exception
    assert [box.value for box in app.selectbox if box.label == "Colour by"] == ["region"] * 4
    next(choice for choice in app.multiselect if choice.label == "Session").set_value([]).run()
    assert not app.exception and "at least one" in app.info[0].value


def test_the_page_begins_with_its_title(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Streamlit itself runs the file, which writes values that stand alone in it onto the page."""
    monkeypatch.setattr(sys, "argv", [str(APP), str(scans)])
    app = AppTest.from_file(APP, default_timeout=60).run()
    assert not app.exception
    assert app.main.children[0].value == "hedypet explorer"


def test_each_scan_of_a_participant_has_its_page_and_images(scans: Path) -> None:
    app = page(scans)
    scan = next(box for box in app.selectbox if box.label == "Scan")
    assert scan.options == ["sub-01 retest", "sub-01 test"]
    assert str(scans / f"sub-01_{RETEST}.html") in "\n".join(text.value for text in app.markdown)
    scan.set_value("sub-01 test").run()
    assert not app.exception
    assert str(scans / f"sub-01_{TEST}.html") in "\n".join(text.value for text in app.markdown)
    images = find_images(Tables(scans).study.outputs("01", session="retest"))
    assert images["ct"].name == "sub-01_ses-test_space-bodystatsesretest_ct.nii.gz"
    assert nib.load(images["pet"]).get_fdata().max() == LIVER["01", RETEST]


def test_one_scan_each_looks_as_it_did(output: Path) -> None:
    app = page(output)
    assert {"Session", "Tracer", "Run", "Reconstruction"}.isdisjoint(c.label for c in app.multiselect)
    assert not [box for box in app.selectbox if box.label == "Scan"]
    assert app.selectbox(key="curves colour ()").options == [
        *("region", "sex", "age group", "split", "every participant")
    ]


def test_ki_is_that_of_the_scan(scans: Path) -> None:
    rows = Tables(scans).patlak(
        regions("ts_total", ["liver"], [0]), "aortavois_ml-1_width-3_aorta_descending_upper"
    )
    of_window = rows[rows["Regression Frames"] == 4].set_index(["Subject", "Session"])["value"]
    expected = {(f"sub-{label}", scan.session): ki for (label, scan), ki in KI.items()}
    assert of_window.to_dict() == expected
    parameters = Tables(scans).parameters()
    assert parameters[["Model", "Parameter"]].values.tolist() == [["Patlak", "Ki"], ["Patlak", "V0"]]
    estimates = Tables(scans).estimates(regions("ts_total", ["liver"], [0]), "Patlak", "Ki")
    assert estimates.set_index(["Subject", "Session"])["value"].to_dict() == expected


# ---- in a real browser


def _wait(condition, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


SHOWN_PLOT = (
    "Array.from(document.querySelectorAll('.js-plotly-plot')).find((p) => p.offsetParent && p.calcdata)"
)


def _plotted(browser: Browser) -> set[str]:
    """The names of the traces of the first plot that is seen."""
    names: list[str] = browser.run(
        f"const plot = {SHOWN_PLOT}; return plot ? plot.data.map((t) => t.name) : []"
    )
    return {name for name in names if name}


def _open_tab(browser: Browser, name: str) -> None:
    _wait(lambda: any(tab.text == name for tab in browser.find("[role=tab]")))
    next(tab for tab in browser.find("[role=tab]") if tab.text == name).click()


@pytest.mark.slow
def test_the_pages_work_in_a_browser(output: Path, tmp_path: Path) -> None:
    with explorer(output) as (address, _), chromium(tmp_path / "profile") as browser:
        browser.open(address, width=1280, height=1600)
        _wait(lambda: "token" not in browser.run("return window.location.href"))
        organs = {"aorta", "brain", "heart", "liver"}
        _open_tab(browser, "Organ means")
        _wait(lambda: _plotted(browser) == organs)
        # The values under the pointer are those of the table.
        hover = browser.run(f"return {SHOWN_PLOT}.calcdata.flatMap((c) => c[0].pts.map((p) => p.v))")
        table = Tables(output).means(regions("ts_total", sorted(organs), [0]), "SUV")
        np.testing.assert_allclose(sorted(hover), sorted(table["value"]), rtol=1e-6)

        _open_tab(browser, "Time-activity curves")
        _wait(lambda: _plotted(browser) == organs)
        labels = [label for label in browser.find("label") if label.text.strip() == "input functions"]
        labels[0].click()
        _wait(lambda: any("descending" in name for name in _plotted(browser)))

        _open_tab(browser, "Participants")
        _wait(lambda: bool(browser.find("iframe")))
        browser.driver.switch_to.frame(browser.find("iframe")[-1])
        _wait(lambda: browser.run("return document.body.dataset.ready") == "yes")
        look = "return document.getElementById('picture').toDataURL()"
        before = browser.run(look)
        browser.run(
            "const s = document.getElementById('slice'); s.value = 3; s.dispatchEvent(new Event('input'));"
        )
        assert browser.run(look) != before
        assert browser.run("return document.getElementById('where').textContent").startswith("4 of")
        browser.driver.switch_to.default_content()

        assert browser.outside_requests() == []
        assert browser.console_errors() == []
        browser.open(address, width=400, height=900)
        _wait(lambda: bool(browser.find("[role=tab]")))
        assert browser.overflow_px() == 0
