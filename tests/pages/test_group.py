"""The group's page in a real browser: points, values, controls, and what it says of gaps."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Browser, chromium
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from running import ROOT, Run, only

from hedypet_bids.figures.distributions import Histogram, bin_edges
from hedypet_bids.group.readouts import GroupTables, write_readouts
from hedypet_bids.io.manifest import StepRecord
from hedypet_bids.labels import task
from hedypet_bids.names import sidecar_of
from hedypet_bids.report.group import write_group_page
from hedypet_bids.settings import KineticsSettings, PatlakSettings, Settings

sys.path.append(str(ROOT))
from benchmarks.group import finish, write_outputs

LIMIT_BYTES = 15_000_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


def add_quality(output: Path, subject: str, value: float, *, state: str = "normal") -> Path:
    """Write the quality checks of a participant as the participant level does."""
    check = {
        "name": "body_shift_mm",
        "value": value if math.isfinite(value) else "n/a",
        "low": 0.0,
        "high": 1.0,
        "units": "mm",
        "meaning": "largest displacement of the body from the reference frame",
        "state": state,
        "text": "",
    }
    flags = [f"displacement {value} mm: look for motion"] if state == "outside" else []
    path = output / subject / "ses-a" / "pet" / f"{subject}_ses-a_qc.json"
    path.write_text(json.dumps({"Checks": [check], "Flags": flags, "hedypet": {"Version": "0"}}))
    return path


def build(output: Path, kinetics: KineticsSettings | None = None, *, most_bytes: int = 9_000_000) -> Path:
    settings = Settings(kinetics=kinetics) if kinetics else Settings()
    tables = write_readouts(output, settings, nprocs=1)
    write_group_page(output, tables, settings, most_value_bytes=most_bytes)
    return output / "group.html"


def table(output: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(output / "readouts" / f"{name}.parquet")


def failed(step: str, reason: str) -> StepRecord:
    return StepRecord(step, "failed", reason, about="ses-a", exit_code=65)


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of twelve made-up participants with an outlier, a lack of constants and bad motion."""
    output = tmp_path_factory.mktemp("twelve")
    write_outputs(output, 12, 5, [task("tissue"), task("totalimage"), task("aortavoi1ml3px")])
    path = only(output / "sub-00006", "*rec-stat_seg-tissue_morph.tsv")
    rows = pd.read_csv(path, sep="\t")
    rows.loc[rows["name"] == "visceral_fat", "mean"] = 5e6
    rows.to_csv(path, sep="\t", index=False)
    for i in range(12):
        (output / f"sub-{i:05d}.html").write_text(f"<h1>page of {i}</h1>")
        if i != 4:
            add_quality(
                output, f"sub-{i:05d}", 2.5 if i == 3 else i / 20, state="outside" if i == 3 else "normal"
            )
        finish(output, f"{i:05d}")
    sidecar_of(only(output / "sub-00009", "*_norm.tsv")).unlink()
    finish(output, "00009", [failed("normalise", "no weight is known")])
    build(output)
    return output


@pytest.fixture
def opened(browser: Browser, twelve: Path) -> Browser:
    browser.open(twelve / "group.html")
    return browser


def choose(browser: Browser, control: str, value: str) -> None:
    """Choose an option by its value or its text."""
    browser.run(
        """const select = document.getElementById(arguments[0]);
        const found = Array.from(select.options).find(o => [o.value, o.textContent].includes(arguments[1]));
        select.value = found.value;
        select.dispatchEvent(new Event('change', {bubbles: true}));""",
        control,
        value,
    )


def wait_for(browser: Browser, css: str) -> list:
    """Elements, once the page has drawn them."""
    browser.driver.execute_async_script(
        """const [css, done] = arguments, began = Date.now();
        (function look() {
          if (document.querySelector(css) || Date.now() - began > 5000) done(); else setTimeout(look, 30);
        })();""",
        css,
    )
    return browser.find(css)


def points(browser: Browser, plots: str, name: str) -> dict[str, str]:
    """What a plot's points say by participant."""
    found = wait_for(browser, f"{plots} figure[data-name='{name}'] a[data-p]")
    assert found, browser.run("return document.body.innerText")
    return dict(link.get_attribute("aria-label").split(", more than")[0].split(": ", 1) for link in found)


def shown(value: float) -> str:
    """Four digits as a person writes them, from the table alone."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{float(f'{value:.4g}'):g}"


def visible_text(browser: Browser) -> str:
    return browser.run("return document.querySelector('main').innerText")


def assert_sound(browser: Browser) -> None:
    """Nothing went wrong in the console, left the machine, or shows nothing."""
    assert browser.console_errors() == []
    assert browser.outside_requests() == []
    assert browser.blank_pictures() == []
    text = visible_text(browser).replace("that are NaN or infinite", "")
    assert not re.search(r"\b(NaN|nan|undefined|None|null|Infinity)\b", text)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_opens_without_errors_requests_or_overflow(
    browser: Browser, twelve: Path, width: int
) -> None:
    browser.open(twelve / "group.html", width=width)
    assert wait_for(browser, "#region-plots svg a")
    assert_sound(browser)
    assert browser.overflow_px() <= 0
    narrow = browser.run(
        "return Array.from(document.querySelectorAll('.plots svg'), s => s.getBoundingClientRect().right)"
    )
    assert max(narrow) <= width


def test_points_are_the_participants_with_a_value_and_hover_tells_the_tables_value(
    opened: Browser, twelve: Path
) -> None:
    means = table(twelve, "means").query("Task == 'ts_tissue' and `Erosion Iterations` == 0")
    metadata = table(twelve, "metadata").set_index("Subject")
    rows = means[means["Label Name"] == "visceral_fat"].set_index("Subject")
    choose(opened, "region", "visceral_fat")
    for quantity, column in (("SUV", "SUV"), ("SUL Janma", "SUL Janma"), ("SUL Decazes", "SUL Decazes")):
        choose(opened, "quantity", f"{quantity} [g/mL]")
        expected = (rows["PET Mean [Bq/mL]"] / metadata[f"{column} Denominator [Bq/mL]"]).dropna()
        assert "sub-00009" not in expected and len(expected) == 11
        found = points(opened, "#region-plots", "visceral_fat")
        assert found == {subject: f"{shown(value)} g/mL" for subject, value in expected.items()}
    choose(opened, "quantity", "Volume [mL]")
    found = points(opened, "#region-plots", "visceral_fat")
    assert found == {subject: f"{shown(value)} mL" for subject, value in rows["Volume [mL]"].items()}
    link = opened.find("#region-plots a[data-p='2']")[0]
    hover(opened, link)
    tip = opened.find("#tip")[0]
    assert tip.is_displayed()
    assert tip.text.splitlines() == [
        "sub-00002",
        f"Volume of visceral_fat: {shown(rows.loc['sub-00002', 'Volume [mL]'])} mL",
        "F, 22 years",
    ]
    assert "12 of 12 participants" in opened.find("#region-plots figcaption")[0].text


def hover(browser: Browser, element) -> None:
    from selenium.webdriver import ActionChains

    browser.run("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(browser.driver).move_to_element(element).perform()


def test_ki_is_that_of_the_settings(browser: Browser, twelve: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(twelve, output)
    chosen = KineticsSettings(
        map_input_function="aortavoi2ml5pxtop", patlak=PatlakSettings(map_last_frames=6)
    )
    browser.open(build(output, chosen))
    choose(browser, "region", "skeletal_muscle")
    choose(browser, "quantity", "Patlak Ki [mL/min/mL]")
    rows = table(output, "patlak_ki").query(
        "Task == 'ts_tissue' and `Label Name` == 'skeletal_muscle' and `Erosion Iterations` == 1"
        " and `Input Function Identifier` == 'aortavois_ml-2_width-5_aorta_top' and `Regression Frames` == 6"
    )
    choose(browser, "erosion", "1")
    found = points(browser, "#region-plots", "skeletal_muscle")
    assert len(rows) == 12
    assert found == {
        s: f"{shown(v)} mL/min/mL" for s, v in zip(rows["Subject"], rows["Patlak Ki"], strict=True)
    }


def test_choosing_changes_the_plot_and_its_axis(opened: Browser) -> None:
    choose(opened, "region", "visceral_fat")
    first = points(opened, "#region-plots", "visceral_fat")
    assert opened.find("#region-plots text.units")[0].text == "SUV [g/mL]"
    choose(opened, "region", "skeletal_muscle")
    second = points(opened, "#region-plots", "skeletal_muscle")
    assert first.keys() == second.keys() and first != second
    choose(opened, "quantity", "Volume [mL]")
    assert points(opened, "#region-plots", "skeletal_muscle") != second
    assert opened.find("#region-plots text.units")[0].text == "Volume [mL]"
    choose(opened, "region", "all/ts_tissue")
    assert len(opened.find("#region-plots figure")) == 3
    choose(opened, "grouping", "sex")
    wait_for(opened, "#region-plots svg")
    texts = [text.text for text in opened.find("#region-plots figure:first-child text")]
    # The sidecar that tells the sex of one participant is missing.
    assert [text for text in texts if "(n " in text] == ["F (n 6)", "M (n 5)", "n/a (n 1)"]


def test_points_lie_where_their_values_are_on_the_axis(opened: Browser) -> None:
    choose(opened, "region", "visceral_fat")
    choose(opened, "quantity", "Volume [mL]")
    wait_for(opened, "#region-plots svg a")
    placed = opened.run(
        """const box = element => element.getBoundingClientRect();
        const middle = element => box(element).x + box(element).width / 2;
        const svg = document.querySelector('#region-plots svg');
        return {
          ticks: Array.from(svg.querySelectorAll('text'), t => [Number(t.textContent), middle(t)]),
          points: Array.from(svg.querySelectorAll('a'), a => [a.told.text, middle(a)]),
          median: middle(svg.querySelector('.median')),
        };"""
    )
    ticks = np.array([tick for tick in placed["ticks"] if tick[0] is not None])
    slope, start = np.polyfit(ticks[:, 0], ticks[:, 1], 1)
    values = [float(text.split()[0]) for text, _ in placed["points"]]
    at = [x for _, x in placed["points"]]
    np.testing.assert_allclose(at, np.array(values) * slope + start, atol=1.0)
    assert placed["median"] == pytest.approx(float(np.median(values)) * slope + start, abs=1.0)


def test_an_outlier_has_another_shape_and_is_in_the_table(opened: Browser, twelve: Path) -> None:
    choose(opened, "region", "visceral_fat")
    wait_for(opened, "#region-plots svg a")
    far = opened.find("#region-plots .far")
    assert len(far) == 1 and far[0].tag_name == "path"
    row = table(twelve, "outliers").query("Quantity == 'SUV' and `Erosion Iterations` == 0").iloc[0]
    cells = [cell.text for cell in opened.find("#outlier-table tbody tr:first-child td")]
    assert (
        cells[:2] == ["sub-00006", "SUV of visceral_fat"] == [row["Subject"], f"SUV of {row['Label Name']}"]
    )
    assert float(cells[4]) == pytest.approx(row["Value"], rel=1e-3)
    assert float(cells[7]) == pytest.approx(row["Robust z"], rel=1e-2)


def test_keys_go_from_point_to_point_and_enter_opens_the_page(opened: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    choose(opened, "region", "visceral_fat")
    choose(opened, "quantity", "Volume [mL]")
    wait_for(opened, "#region-plots svg a")
    # One stop of Tab a plot, however many participants there are.
    assert len(opened.find("#region-plots a[tabindex='0']")) == 1
    opened.find("#marked")[0].send_keys(Keys.TAB)
    focused = opened.driver.switch_to.active_element
    assert focused.get_attribute("data-p") is not None
    ring = opened.run("return getComputedStyle(document.activeElement.firstChild).strokeWidth", focused)
    assert float(ring.removesuffix("px")) > 2
    told, people = [], set()
    for _ in range(3):
        active = opened.driver.switch_to.active_element
        told.append(float(active.get_attribute("aria-label").split(": ")[1].split()[0]))
        people.add(active.get_attribute("data-p"))
        assert active.get_attribute("aria-label").split(": ")[1] in opened.find("#tip")[0].text
        active.send_keys(Keys.ARROW_RIGHT)
    assert told == sorted(told) and len(people) == 3
    active = opened.driver.switch_to.active_element
    active.send_keys(Keys.ESCAPE)
    assert not opened.find("#tip")[0].is_displayed()
    label = active.get_attribute("aria-label").split(":")[0]
    active.send_keys(Keys.ENTER)
    wait_for(opened, "h1")
    assert opened.driver.current_url.endswith(f"/{label}.html")
    assert opened.find("h1")[0].text == f"page of {int(label.removeprefix('sub-'))}"


def test_a_click_opens_the_page_and_marking_shows_a_participant_in_every_plot(opened: Browser) -> None:
    choose(opened, "region", "all/ts_tissue")
    wait_for(opened, "#region-plots svg a")
    choose(opened, "marked", "sub-00005")
    chosen = opened.run("return Array.from(document.querySelectorAll('.chosen'), a => a.dataset.p)")
    assert len(chosen) >= 3 and set(chosen) == {"5"}
    link = opened.find("#region-plots a.chosen")[0]
    hover(opened, link)
    link.click()
    wait_for(opened, "h1")
    assert opened.driver.current_url.endswith("/sub-00005.html")


def test_quality_checks_have_points_a_normal_range_and_flags(opened: Browser) -> None:
    opened.run("document.getElementById('quality').scrollIntoView()")
    found = points(opened, "#quality-plots", "body shift mm")
    wanted = {f"sub-{i:05d}": f"{shown(i / 20)} mm" for i in range(12) if i not in (3, 4)}
    assert {s: text.split(",")[0] for s, text in found.items()} == {**wanted, "sub-00003": "2.5 mm"}
    figure = opened.find("#quality-plots figure")[0]
    assert "normal 0 to 1 mm" in figure.text and "11 of 12 participants" in figure.text
    assert len(opened.find("#quality-plots .normal")) == 1
    assert [a.get_attribute("data-p") for a in opened.find("#quality-plots a:has(.far)")] == ["3"]
    assert "sub-00003 displacement 2.5 mm: look for motion" in opened.find("#flag-table")[0].text
    row = opened.find("#participant-table tbody tr:nth-child(5)")[0].text
    assert row.startswith("sub-00004") and row.endswith("not checked")


def test_what_is_missing_stands_with_its_reason(opened: Browser) -> None:
    rows = [row.text for row in opened.find("#missing-table tr")]
    assert any("constants" in row and "failed: no weight is known" in row for row in rows)
    quality = opened.run("return document.querySelector('#quality').parentElement.innerText")
    assert "sub-00009" in quality and "no weight is known" in quality


def test_demographics_count_the_participants(opened: Browser, twelve: Path) -> None:
    metadata = table(twelve, "metadata")
    rows = {row.text.split()[0]: row.text for row in opened.find("#demographics-table tbody tr")}
    women = metadata[metadata["Sex"] == "F"]["Age [years]"]
    assert rows["female"].split()[1] == "6"
    assert f"{women.median():.4g} ({women.min():.4g} to {women.max():.4g}; n 6)" in rows["female"]
    assert len(opened.find(".histogram")) == 4
    for figure in opened.find(".histogram"):
        titles = opened.run(
            "return Array.from(arguments[0].querySelectorAll('rect title'), t => t.textContent)", figure
        )
        counted = sum(int(re.search(r": (\d+) ", title)[1]) for title in titles)
        # One participant's sidecar of the constants, which tells the demographics, is missing.
        assert counted == 11
        label = figure.find_element("css selector", "svg").get_attribute("aria-label")
        assert label.startswith("Histogram of") and "11 participants" in label


def test_the_page_prints_every_plot(opened: Browser) -> None:
    choose(opened, "region", "all/ts_tissue")
    opened.run("dispatchEvent(new Event('beforeprint'))")
    figures = opened.find(".plots figure")
    assert len(figures) == 4 and len(opened.find(".plots figure svg")) == 4
    assert opened.driver.print_page()


def test_one_participant_and_no_dynamic_data(browser: Browser, tmp_path: Path) -> None:
    write_outputs(tmp_path, 1, 5, [task("tissue"), task("totalimage")])
    for path in list(tmp_path.rglob("*rec-dyn*")):
        path.unlink()
    finish(tmp_path, "00000")
    browser.open(build(tmp_path), width=400)
    wait_for(browser, "#region-plots svg a")
    text = visible_text(browser)
    assert "Group of 1 participant\n" in text and "single point" in text
    assert "No participant has a value of Patlak Ki" in text and "No quality checks were found" in text
    assert "1 participant is too few to look" in text
    assert len(browser.find("#region-plots figure:first-child a[data-p]")) == 1
    ki = browser.run("return document.getElementById('quantity').options[4]")
    assert ki.get_attribute("disabled") and "no values" in ki.get_attribute("textContent")
    assert_sound(browser)
    assert browser.overflow_px() <= 0


@pytest.mark.parametrize("state", ["missing", "broken"])
@pytest.mark.parametrize("name", ["metadata", "means", "kinetics", "statistics", "outliers", "all"])
def test_a_missing_or_broken_table_is_named_and_the_page_opens(
    browser: Browser, twelve: Path, tmp_path: Path, name: str, state: str
) -> None:
    output = tmp_path / "out"
    shutil.copytree(twelve, output)
    for path in (output / "readouts").glob("*.parquet"):
        if name in ("all", path.stem):
            path.unlink()
            if state == "broken":
                path.write_bytes(b"PAR1 no table")
    write_group_page(output, GroupTables(12, {}))
    browser.open(output / "group.html")
    text = visible_text(browser)
    assert "What this page could not read" in text
    assert f"readouts/{'metadata' if name == 'all' else name}.parquet" in text
    assert "Group of 12 participants" in text
    assert ("missing" if state == "missing" else "cannot be read") in text
    if name == "all":
        assert "No region has a value" in text
    else:
        assert wait_for(browser, "#region-plots svg a")
    assert_sound(browser)


def test_broken_quality_files_are_named(twelve: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(twelve, output)
    for i, content in enumerate(
        ['{"Checks"', "[]", '{"hedypet": {}, "Checks": [{"name": "x"}], "Flags": []}']
    ):
        only(output / f"sub-{i:05d}", "*_qc.json").write_text(content)
    page = build(output).read_text()
    # What was written is no longer there, so nothing of these participants is taken.
    for i in range(3):
        assert only(output / f"sub-{i:05d}", "*_qc.json").name in page


def test_text_of_others_is_not_code(browser: Browser, twelve: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(twelve, output)
    text = "</script><img src=x onerror=alert(1)>"
    finish(output, "00009", [failed("normalise", text)])
    path = only(output / "sub-00001", "*_qc.json")
    path.write_text(path.read_text().replace("largest displacement", text))
    finish(output, "00001")
    browser.open(build(output))
    assert text in browser.find("#missing-table")[0].text
    assert not browser.find("main img")
    assert_sound(browser)


def test_the_page_of_the_phantom_has_its_values_and_reasons(browser: Browser, phantom_run: Run) -> None:
    browser.open(phantom_run.output / "group.html")
    metadata = table(phantom_run.output, "metadata").set_index("Subject")
    means = table(phantom_run.output, "means").query(
        "Task == 'ts_total' and `Label Name` == 'liver' and `Erosion Iterations` == 0"
    )
    expected = means.set_index("Subject")["PET Mean [Bq/mL]"] / metadata["SUV Denominator [Bq/mL]"]
    assert points(browser, "#region-plots", "liver") == {s: f"{shown(v)} g/mL" for s, v in expected.items()}
    assert len(browser.find("#region-plots figure")) == 13
    choose(browser, "quantity", "Patlak Ki [mL/min/mL]")
    assert set(points(browser, "#region-plots", "liver")) == {"sub-001"}
    assert "no dynamic PET was found" in browser.find("#missing-table")[0].text
    assert_sound(browser)


def write_tables(output: Path, n: int) -> None:
    """Readout tables of many participants with every region of hedyPET, of random numbers."""
    random = np.random.default_rng(0)
    subjects = [f"sub-{i:04d}" for i in range(n)]
    write_outputs(output, 1, 3, [task("total"), task("tissue"), task("synthseg"), task("synthsegparc")])
    write_readouts(output, Settings(), nprocs=1)
    for name in ("metadata", "means", "kinetics"):
        path = output / "readouts" / f"{name}.parquet"
        rows = pd.read_parquet(path)
        many = pd.concat([rows.assign(Subject=subject) for subject in subjects], ignore_index=True)
        for column in ("PET Mean [Bq/mL]", "Value", "Volume [mL]"):
            if column in many:
                many[column] = random.lognormal(size=len(many))
        many.to_parquet(path, index=False, row_group_size=131_072)


@pytest.mark.exhaustive
def test_a_thousand_participants_with_all_regions_stay_below_the_limit(
    browser: Browser, tmp_path: Path
) -> None:
    write_tables(tmp_path, 1000)
    write_group_page(tmp_path, GroupTables(1000, {"metadata": 1000}))
    page = tmp_path / "group.html"
    assert 5_000_000 < page.stat().st_size < LIMIT_BYTES
    browser.open(page)
    found = points(browser, "#region-plots", "liver")
    assert len(found) == 1000
    regions = browser.run("return document.querySelectorAll('#region optgroup option').length")
    assert regions > 250
    took = browser.run(
        """const began = performance.now(), select = document.getElementById('quantity');
        select.value = '5'; select.dispatchEvent(new Event('change'));
        return performance.now() - began;"""
    )
    assert took < 1000
    assert browser.console_errors() == []


def test_regions_are_left_out_before_the_page_grows_too_large(
    browser: Browser, twelve: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(twelve, output)
    browser.open(build(output, most_bytes=5 * 12 * 16))
    regions = browser.run("return JSON.parse(document.getElementById('data').textContent).regions")
    assert [(r["name"], r["erosion"]) for r in regions[:3]] == [
        ("skeletal_muscle", 0),
        ("subcutaneous_fat", 0),
        ("visceral_fat", 0),
    ]
    assert len(regions) == 5
    assert "2 regions are left out" in visible_text(browser)


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6)))
def test_histograms_count_every_value_once(values: np.ndarray) -> None:
    edges = bin_edges(values)
    assert 2 <= len(edges) <= 12 and edges[0] <= values.min() and values.max() <= edges[-1]
    histogram = Histogram.of("x", {"all": values, "none": np.array([np.nan])})
    assert histogram is not None
    assert sum(int(bar.text.split(": ")[1].split()[0]) for bar in histogram.bars) == len(values)
    assert all(bar.height > 0 and bar.y >= 0 for bar in histogram.bars)


def test_no_value_makes_no_histogram() -> None:
    assert Histogram.of("x", {"all": np.array([np.nan])}) is None
