"""The participant's page in a real browser, and that what it says is what the tables say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from browser import Browser, chromium
from coarse_phantom import COARSE, FRAMES
from matplotlib.colors import to_hex
from running import Run, hedypet, only

from hedypet_bids.figures.curves import draw_input_functions
from hedypet_bids.figures.patlak import draw_patlak, patlak_plot
from hedypet_bids.io.tables import read_table
from hedypet_bids.kernels.kinetics.patlak import Window
from hedypet_bids.labels import label_table
from hedypet_bids.phantom import write_phantom
from hedypet_bids.report.methods import methods_of_dataset
from hedypet_bids.report.organs import GREY_MATTER, LIVER, MUSCLE, Organ, organ_curve
from hedypet_bids.settings import Settings

INPUT_FUNCTION, LAST_FRAMES = "aortavoicombineddescending", 8
CONSTANT_COLUMNS = {
    "SUV [g/mL]": "suv",
    "SUL James [g/mL]": "sul_james",
    "SUL Janma [g/mL]": "sul_janma",
    "SUL Decazes [g/mL]": "sul_decazes",
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def no_ct(coarse: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A participant whose only image is the static PET."""
    folder = tmp_path_factory.mktemp("no-ct")
    bids, output = folder / "bids", folder / "out"
    ignored = shutil.ignore_patterns("sub-001", "ct", "derivatives", "*_ct.*")
    shutil.copytree(coarse, bids, ignore=ignored)
    done = hedypet(
        bids, output, "participant", "--participant-label", "002", "--skip-bids-validation", "--nprocs", "1"
    )
    return Run(bids, output, done, done)


def table_of(browser: Browser, css: str) -> pd.DataFrame:
    """A table of the open page, as its cells' text."""
    rows = browser.run(
        "return [...document.querySelectorAll(arguments[0] + ' tr')]"
        ".map(row => [...row.children].map(cell => cell.innerText.trim()))",
        css,
    )
    return pd.DataFrame(rows[1:], columns=rows[0])


def significant(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}g}"


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("label", ["001", "002"])
def test_the_page_opens_clean_offline_and_fits(
    browser: Browser, phantom_run: Run, label: str, width: int
) -> None:
    browser.open(phantom_run.output / f"sub-{label}.html", width=width)
    assert browser.console_errors() == []
    assert browser.outside_requests() == []
    assert browser.overflow_px() <= 0
    assert len(browser.find("img")) >= 5
    assert browser.blank_pictures() == []
    alts = [image.get_attribute("alt") for image in browser.find("img")]
    assert all(len(alt) > 20 for alt in alts)
    assert len(set(alts)) == len(alts)


def test_the_page_of_a_whole_participant_has_every_picture(browser: Browser, phantom_run: Run) -> None:
    browser.open(phantom_run.output / "sub-001.html")
    counts = browser.run(
        """const found = {}; let section = '';
        for (const item of document.querySelectorAll('h2, main img')) {
          if (item.tagName === 'H2') section = item.id; else found[section] = (found[section] || 0) + 1;
        } return found;"""
    )
    assert counts == {
        "patlak": 4,
        "input-functions": 2,
        "curves": 2,
        "uptake": 2,
        "maps": 2,
        "segmentations": 8,
        "alignment": 18,
        "aorta": 1,
    }
    assert len(browser.find(".scale")) == 2
    text = browser.run("return document.querySelector('#uptake ~ .scale').innerText")
    assert text.split() == ["0", "10", "SUV", "[g/mL]"]


def test_pictures_are_also_files(phantom_run: Run) -> None:
    folder = phantom_run.output / "sub-001" / "figures"
    names = {path.name.removeprefix("sub-001_desc-") for path in folder.iterdir()}
    assert {"mipcoronal.webp", "kimipsagittal.webp", "patlakLiver.svg", "segtotalcoronal.webp"} <= names
    assert {"alignheadaxialbelow.webp", "alignheadaxialabove.webp", "inputfunctionsearly.svg"} <= names


@pytest.mark.parametrize("title", ["liver", "spleen", "brain", "urinary bladder"])
def test_the_table_of_organs_equals_the_tables(browser: Browser, phantom_run: Run, title: str) -> None:
    folder = phantom_run.output / "sub-001"
    region = title.replace(" ", "_")
    browser.open(phantom_run.output / "sub-001.html")
    shown = table_of(browser, "#organ-table").set_index("organ").loc[title]
    means = read_table(only(folder, "*acstatPSF_seg-total_desc-eroded1_morph.tsv")).set_index("name")
    whole = read_table(only(folder, "*acstatPSF_seg-total_morph.tsv")).set_index("name")
    constants = read_table(only(folder, "*_norm.tsv")).set_index("name")["value"]
    ki = read_table(only(folder, "*_seg-total_desc-eroded1_model-Patlak_kinpar.tsv"))
    row = ki[
        (ki["name"] == region) & (ki["input_function"] == INPUT_FUNCTION) & (ki["last_frames"] == LAST_FRAMES)
    ].iloc[0]
    assert shown["erosions"] == "1"
    assert shown["volume [mL]"] == significant(whole.loc[region, "volume"])
    assert shown["mean [Bq/mL]"] == significant(means.loc[region, "mean"], 5)
    for column, name in CONSTANT_COLUMNS.items():
        assert shown[column] == significant(means.loc[region, "mean"] / constants[name])
    ki_text = f"{significant(row['Ki'])} ± {significant(row['Ki_se'], 2)}"
    assert shown["Ki ± SE [mL/min/mL]"] == ki_text


def test_the_table_of_a_model_equals_its_tables(browser: Browser, phantom_run: Run) -> None:
    table = read_table(
        only(phantom_run.output / "sub-001", "*_seg-total_desc-eroded1_model-Patlak_kinpar.tsv")
    )
    chosen = (table["input_function"] == INPUT_FUNCTION) & (table["last_frames"] == LAST_FRAMES)
    rows = table[chosen].set_index("name")
    browser.open(phantom_run.output / "sub-001.html")
    shown = table_of(browser, "#kinetics-Patlak").set_index("organ")
    for organ, region in (("liver", "liver"), ("kidney, left", "kidney_left")):
        for column, name in (("Ki [mL/min/mL]", "Ki"), ("V0 [mL/mL]", "V0")):
            value, se = rows.loc[region, name], rows.loc[region, f"{name}_se"]
            assert shown.loc[organ, column] == f"{significant(value)} ± {significant(se, 2)}"
    ki = shown.loc["brain grey matter", "Ki [mL/min/mL]"].split(" ± ")[0]
    assert ki == significant(merged_ki(phantom_run.output / "sub-001", GREY_MATTER))


def test_ki_against_the_start_of_the_window_is_that_of_the_tables(browser: Browser, phantom_run: Run) -> None:
    folder = phantom_run.output / "sub-001"
    table = read_table(only(folder, "*_seg-total_desc-eroded1_model-Patlak_kinpar.tsv"))
    browser.open(phantom_run.output / "sub-001.html")
    shown = table_of(browser, "#patlak-windows").set_index("organ")
    for organ, region in (("liver", "liver"), ("urinary bladder", "urinary_bladder")):
        rows = table[(table["name"] == region) & (table["input_function"] == INPUT_FUNCTION)]
        for _, row in rows.iterrows():
            column = f"t* {row['t_start'] / 60:.3g} min, {row['n_used']} frames"
            se = " ± n/a" if row["n_used"] == 2 else f" ± {significant(row['Ki_se'], 2)}"
            assert shown.loc[organ, column] == significant(row["Ki"]) + se
        row = rows[rows["last_frames"] == LAST_FRAMES].iloc[0]
        change, change_se = (100 * row[name] for name in ("slope_change", "slope_change_se"))
        text = f"{significant(change)} ± {significant(change_se, 2)}"
        assert shown.loc[organ, "change of slope [%]"] == text
        assert shown.loc[organ, "remark"] == ("" if pd.isna(row["reason"]) else row["reason"])
    # Fits of organs with several regions are linear in the curve.
    first = shown.loc["brain grey matter"].iloc[2].split(" ± ")[0]
    assert first == significant(merged_ki(folder, GREY_MATTER))


def test_an_organ_of_several_regions_is_their_mean_by_volume(browser: Browser, phantom_run: Run) -> None:
    folder = phantom_run.output / "sub-001"
    browser.open(phantom_run.output / "sub-001.html")
    shown = table_of(browser, "#organ-table").set_index("organ").loc["brain grey matter"]
    means = read_table(only(folder, "*acstatPSF_seg-synthseg_morph.tsv")).set_index("name")
    both = means.loc[list(GREY_MATTER.regions)]
    mean = (both["mean"] * both["n_voxels"]).sum() / both["n_voxels"].sum()
    constants = read_table(only(folder, "*_norm.tsv")).set_index("name")["value"]
    assert shown["volume [mL]"] == significant(both["volume"].sum())
    assert shown["SUV [g/mL]"] == significant(mean / constants["suv"])
    assert shown["Ki ± SE [mL/min/mL]"].split(" ± ")[0] == significant(merged_ki(folder, GREY_MATTER))


def test_the_quality_table_has_words_for_pass_and_flag(browser: Browser, phantom_run: Run) -> None:
    import json

    path = only(phantom_run.output / "sub-001", "*acdynPSF_qc.json")
    checks = {c["name"].replace("_", " "): c for c in json.loads(path.read_text())["Checks"]}
    browser.open(phantom_run.output / "sub-001.html")
    shown = table_of(browser, "#quality-table").set_index("check")
    assert set(shown.index) == set(checks)
    words = {"normal": "pass", "outside": "FLAG", "unknown": "not known"}
    for name, check in checks.items():
        assert shown.loc[name, "result"] == words[check["state"]]
        assert shown.loc[name, "normal"] == f"{check['low']:.4g} to {check['high']:.4g}"


def test_steps_have_time_and_memory(browser: Browser, phantom_run: Run) -> None:
    log = only(phantom_run.output / "sub-001", "steps.tsv")
    recorded = read_table(log).set_index("step")
    browser.open(phantom_run.output / "sub-001.html")
    shown = table_of(browser, "#step-table").set_index("step")
    # The page cannot tell how long it took itself.
    recorded = recorded.drop("report")
    assert set(shown.index) == set(recorded.index)
    for step, row in recorded.iterrows():
        assert shown.loc[step, "state"] == row["state"]
        assert shown.loc[step, "time [s]"] == f"{row['seconds']:.1f}"
        assert shown.loc[step, "peak memory [MB]"] == f"{row['peak_mb']:.0f}"


def test_spaces_have_the_grids_of_their_images(browser: Browser, phantom_run: Run) -> None:
    browser.open(phantom_run.output / "sub-001.html")
    shown = table_of(browser, "#spaces-table").set_index("space")
    for space, pattern in (
        ("bodystat", "*_space-bodystat_seg-total_dseg.nii.gz"),
        ("bodydyn", "*_space-bodydyn_seg-total_dseg.nii.gz"),
        ("head", "*_space-head_seg-total_res-1mm_dseg.nii.gz"),
    ):
        image = nib.load(only(phantom_run.output / "sub-001", pattern))
        assert shown.loc[space, "voxels (x, y, z)"] == " x ".join(map(str, image.shape))
        sizes = [float(re.sub(" .*", "", mm)) for mm in shown.loc[space, "voxel size [mm]"].split(" x ")]
        np.testing.assert_allclose(sizes, image.header.get_zooms(), rtol=1e-3)


def test_the_legend_has_the_colours_of_the_label_table(browser: Browser, phantom_run: Run) -> None:
    path = only(phantom_run.output / "sub-001", "*_space-bodystat_seg-total_dseg.tsv")
    colours = read_table(path).set_index("name")["color"]
    browser.open(phantom_run.output / "sub-001.html")
    shown = browser.run(
        "return [...document.querySelector('.legend').children].map(item => "
        "[item.innerText.trim(), getComputedStyle(item.querySelector('i')).backgroundColor])"
    )
    assert len(shown) == 20
    image = np.asanyarray(nib.load(path.with_name(path.name.replace(".tsv", ".nii.gz"))).dataobj)
    sizes = np.bincount(image.ravel())[1:]
    table = label_table("total")
    assert shown[0][0] == table.names[table.indices.index(int(np.argmax(sizes)) + 1)]
    for name, colour in shown:
        rgb = [int(part) for part in re.findall(r"\d+", colour)]
        assert "#{:02x}{:02x}{:02x}".format(*rgb) == colours[name]


def test_the_slider_goes_from_one_image_to_the_other_by_keyboard(browser: Browser, phantom_run: Run) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(phantom_run.output / "sub-001.html")
    slider = browser.find("#blend-pet")[0]
    [pair] = browser.find("#blends-pet figure:first-child .blend")
    below, above = pair.find_elements("css selector", "img")
    shots = {}
    for key, opacity in ((Keys.HOME, "0"), (Keys.END, "1"), (Keys.ARROW_LEFT, "0.95")):
        slider.send_keys(key)
        assert browser.run("return getComputedStyle(arguments[0]).opacity", above) == opacity
        shots[key] = pair.screenshot_as_png
    assert len(set(shots.values())) == 3
    assert slider.get_attribute("aria-valuetext") == "95 % PET"
    # Only the slider's own pictures change.
    other = browser.find("#blends-head .blend img + img")[0]
    assert browser.run("return getComputedStyle(arguments[0]).opacity", other) == "0.5"
    assert browser.run("return arguments[0].naturalWidth === arguments[1].naturalWidth", below, above)


def test_focus_is_visible(browser: Browser, phantom_run: Run) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.open(phantom_run.output / "sub-001.html")
    kinds = set()
    for _ in range(60):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        kind, style, width = browser.run(
            "const e = document.activeElement, s = getComputedStyle(e);"
            "return [e.tagName, s.outlineStyle, s.outlineWidth]"
        )
        if kind == "BODY":
            break
        kinds.add(kind)
        assert style != "none" and float(width.removesuffix("px")) >= 1, kind
    assert {"A", "DIV", "INPUT", "SUMMARY"} <= kinds


def test_print_shows_both_images_without_a_slider(browser: Browser, phantom_run: Run) -> None:
    from selenium.webdriver.common.keys import Keys

    # The width of A4.
    browser.open(phantom_run.output / "sub-001.html", width=794)
    browser.find("#blend-pet")[0].send_keys(Keys.END)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.overflow_px() <= 0
        shown = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
        assert browser.run(shown, ".slider", "display") == "none"
        assert browser.run(shown, "#blends-pet .blend img + img", "opacity") == "0.5"
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_missing_parts_leave_a_sentence_with_the_reason(browser: Browser, phantom_run: Run) -> None:
    browser.open(phantom_run.output / "sub-002.html")
    notes = browser.run(
        """const found = {}; let section = '';
        for (const item of document.querySelectorAll('h2, .note')) {
          if (item.tagName === 'H2') section = item.id;
          else found[section] = (found[section] || '') + item.innerText;
        } return found;"""
    )
    for section in ("kinetics", "patlak", "input-functions", "curves", "maps", "aorta"):
        assert "no dynamic PET was found" in notes[section], section
    assert "MPRAGE" in notes["alignment"] and "DIXONbodyIN" in notes["alignment"]
    files = table_of(browser, "#files-table").set_index("input")["file"]
    assert files["dynamic PET"] == files["topogram"] == "not found"


@pytest.mark.slow
def test_several_scans_have_a_page_each_and_one_that_leads_to_them(browser: Browser, tmp_path: Path) -> None:
    bids = write_phantom(
        tmp_path / "bids",
        participants=1,
        seed=1,
        size=COARSE,
        frames=FRAMES,
        sessions=2,
        extra_statics=True,
        without={"001": ("mr", "topogram")},
    )
    done = hedypet(bids, tmp_path / "out", "participant", "--skip-bids-validation")
    assert done.returncode == 0, done.stderr
    browser.open(tmp_path / "out" / "sub-001.html", width=400)
    assert browser.console_errors() == [] and browser.overflow_px() <= 0
    links = [link.get_attribute("href") for link in browser.find("#scan-table a")]
    assert len(set(links)) == 2
    sessions = []
    for link in links:
        page = Path(link.removeprefix("file://"))
        browser.open(page, width=400)
        assert browser.console_errors() == [] and browser.overflow_px() <= 0
        assert browser.blank_pictures() == []
        sessions.append(table_of(browser, "#files-table").set_index("input").loc["dynamic PET", "file"])
        statics = len(list(bids.rglob(f"{page.stem}_rec-acstat*_pet.nii.gz")))
        assert statics > 1
        tables = browser.find("[aria-label^='Main organs'] table")
        assert len(tables) == statics and tables[0].get_attribute("id") == "organ-table"
        [back] = browser.find("h1 + p a")
        assert back.get_attribute("href").endswith("/sub-001.html")
        figures = {path.name.split("_desc-")[0] for path in (page.parent / "sub-001" / "figures").iterdir()}
        assert page.stem in figures
    assert len(set(sessions)) == 2


@pytest.mark.slow
def test_without_ct_and_dynamic_the_page_still_opens(browser: Browser, no_ct: Run) -> None:
    assert no_ct.participant.returncode == 0, no_ct.participant.stderr
    browser.open(no_ct.output / "sub-002.html", width=400)
    assert browser.console_errors() == [] and browser.overflow_px() <= 0
    assert browser.blank_pictures() == []
    assert len(browser.find("img")) == 2
    assert len(browser.find("#segmentations + .note")) == len(browser.find("#alignment + .note")) == 1
    assert "SUV [g/mL]" in browser.run("return document.body.innerText")


def merged_ki(folder: Path, organ: Organ) -> float:
    """Ki of an organ of several regions from the table: fits are linear in the curve."""
    eroded = f"_desc-eroded{organ.erosion}" if organ.erosion else ""
    table = read_table(only(folder, f"*_seg-{organ.task}{eroded}_model-Patlak_kinpar.tsv"))
    rows = table[
        (table["input_function"] == INPUT_FUNCTION) & (table["last_frames"] == LAST_FRAMES)
    ].set_index("name")
    volumes = read_table(only(folder, f"*acdynPSF_seg-{organ.task}{eroded}_morph.tsv")).set_index("name")
    n = volumes.loc[list(organ.regions), "n_voxels"]
    return float((rows.loc[list(organ.regions), "Ki"] * n).sum() / n.sum())


@pytest.mark.parametrize("organ", [GREY_MATTER, LIVER, MUSCLE], ids=lambda organ: organ.title)
def test_the_plotted_line_has_the_slope_of_the_table(phantom_run: Run, organ: Organ) -> None:
    folder = phantom_run.output / "sub-001"
    key = (organ.task, organ.erosion)
    eroded = f"_desc-eroded{organ.erosion}" if organ.erosion else ""
    curves = {key: only(folder, f"*acdynPSF_seg-{organ.task}{eroded}_tacs.tsv")}
    volumes = {key: only(folder, f"*acdynPSF_seg-{organ.task}{eroded}_morph.tsv")}
    blood = read_table(only(folder, f"*_recording-{INPUT_FUNCTION}_desc-idif_blood.tsv"))
    found = organ_curve(organ, curves, volumes)
    assert found is not None
    frames, curve = found
    cp = blood["whole_blood_radioactivity"].to_numpy()
    plot = patlak_plot(curve, cp, frames, window=Window(last_frames=LAST_FRAMES), rule="simpson")
    [axis] = draw_patlak(plot, title=organ.title).axes
    lines = {line.get_linestyle(): line for line in axis.get_lines()}
    x, y = lines["-"].get_data()
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(merged_ki(folder, organ), rel=1e-6)

    points = [line for line in axis.get_lines() if line.get_marker() == "o"]
    used = next(line for line in points if line.get_markerfacecolor() != "white")
    outside = next(line for line in points if line.get_markerfacecolor() == "white")
    assert len(used.get_xdata()) == LAST_FRAMES
    assert len(outside.get_xdata()) == len(frames) - LAST_FRAMES
    # The points alone give the line: the plot and the table integrate in the same way.
    slope, intercept = np.polyfit(used.get_xdata(), used.get_ydata(), 1)
    assert slope == pytest.approx(merged_ki(folder, organ), rel=1e-6)
    assert y[0] == pytest.approx(intercept + slope * x[0], rel=1e-9)


def test_the_caption_of_a_patlak_plot_has_the_numbers_of_the_table(phantom_run: Run) -> None:
    table = read_table(
        only(phantom_run.output / "sub-001", "*_seg-total_desc-eroded1_model-Patlak_kinpar.tsv")
    )
    row = table[
        (table["name"] == "liver")
        & (table["input_function"] == INPUT_FUNCTION)
        & (table["last_frames"] == LAST_FRAMES)
    ].iloc[0]
    page = (phantom_run.output / "sub-001.html").read_text()
    assert f"Liver: Ki {row['Ki']:.4g} ± {row['Ki_se']:.2g} mL/min/mL, V0 {row['V0']:.4g} mL/mL" in page
    assert f"R² {row['r2']:.4f}, 8 frames." in page


def test_every_input_function_is_drawn_with_its_values(phantom_run: Run) -> None:
    paths = sorted((phantom_run.output / "sub-001").rglob("*_desc-idif_blood.tsv"))
    tables = {re.search("recording-(.*?)_", path.name)[1]: read_table(path) for path in paths}
    [axis] = draw_input_functions(tables, early=True).axes
    drawn = [line for line in axis.get_lines() if len(line.get_xdata())]
    assert len(drawn) == 13
    assert axis.get_xlim() == (0, 180)
    for line, table in zip(drawn, tables.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), table["whole_blood_radioactivity"] / 1000)
        np.testing.assert_allclose(line.get_xdata(), table["time"])
    looks = {(to_hex(line.get_color()), line.get_linestyle()) for line in drawn}
    assert len(looks) == 13
    shown = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert "combined descending" in shown and "upper descending" in shown and len(shown) == 8


def test_the_citation_files_are_the_methods_of_the_settings(phantom_run: Run) -> None:
    text = (phantom_run.output / "logs" / "CITATION.md").read_text()
    bib = (phantom_run.output / "logs" / "CITATION.bib").read_text()
    assert text == methods_of_dataset(Settings()).markdown()
    keys = re.findall(r"^@\w+\{(\w+),$", bib, flags=re.MULTILINE)
    assert len(keys) == len(set(keys)) == len(re.findall(r"^\d+\. ", text, flags=re.MULTILINE))
    assert {"patlak", "totalsegmentator", "mattes", "janmahasatian"} <= set(keys)
    assert bib.count("{") == bib.count("}")
    cited = {int(n) for group in re.findall(r"\[([\d, ]+)\]", text) for n in group.split(", ")}
    assert cited == set(range(1, len(keys) + 1))


def test_the_methods_of_the_page_are_those_of_the_participant(phantom_run: Run) -> None:
    whole, static_only = ((phantom_run.output / f"sub-{label}.html").read_text() for label in ("001", "002"))
    for author in ("Patlak C", "Mattes D"):
        assert author in whole and author not in static_only
    # The segmentations came with the dataset.
    assert "Isensee" not in whole


@pytest.mark.slow
def test_a_crash_is_told_with_its_log_and_kept_when_only_the_report_is_made_again(
    browser: Browser, coarse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hedypet_bids.cli.main import main
    from hedypet_bids.steps.means import MeasureStatic

    def crash(*_: object) -> None:
        raise RuntimeError("the <disk> & the bus")

    arguments = [str(coarse), str(tmp_path / "out"), "participant", "--participant-label", "002"]
    arguments += ["--skip-bids-validation", "--nprocs", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(MeasureStatic, "run", crash)
        assert main(arguments) == 1
    for suffix in ("failed: RuntimeError: the <disk> & the bus", "(in run "):
        browser.open(tmp_path / "out" / "sub-002.html")
        assert browser.console_errors() == []
        text = browser.run("return document.querySelector('.alarm').textContent")
        assert text.startswith("means") and suffix in text
        assert "Traceback" in text and 'raise RuntimeError("the <disk> & the bus")' in text
        shown = table_of(browser, "#step-table").set_index("step")
        assert shown.loc["normalise", "state"] in ("ran", "done")
        assert "No organ was measured" in browser.run("return document.body.innerText")
        assert main([*arguments, "--steps", "report"]) == 0
    assert "made in run" in shown.loc["normalise", "remark"]


@pytest.mark.slow
def test_results_that_were_damaged_leave_a_sentence(
    browser: Browser, phantom_run: Run, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(phantom_run.output, output)
    blood = only(output / "sub-001", "*_recording-aortavoi2ml5pxtop_desc-idif_blood.tsv")
    brain = only(output / "sub-001", "*_space-head_seg-synthseg_res-1mm_dseg.nii.gz")
    blood.write_bytes(b"")
    brain.write_bytes(b"no image")
    done = hedypet(
        phantom_run.bids,
        output,
        *("participant", "--participant-label", "001", "--skip-bids-validation", "--steps", "report"),
    )
    assert done.returncode == 0, done.stderr
    browser.open(output / "sub-001.html")
    assert browser.console_errors() == []
    assert blood.name in browser.find("#input-functions + .note")[0].text
    assert brain.name in browser.find("#missing")[0].text
    assert len(browser.find("#uptake ~ .images img")) >= 4
    assert len(browser.find("#organ-table tr")) > 10
