"""The explorer on a study of hedyPET's size: time to the first view and of a change, in a real browser.

Run the group level on 80 made-up participants first (``benchmarks.group`` has what makes them), or give
an output folder of your own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.group import run_group, write_outputs
from hedypet_bids.labels import ALL_TASKS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import Browser, chromium
from explorer_process import explorer

_SHOWN = "Array.from(document.querySelectorAll('.js-plotly-plot')).find((p) => p.offsetParent && p.calcdata)"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", help="output folder with readout tables")
    parser.add_argument("--participants", type=int, default=80)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = given.output or Path(folder) / "output"
        if given.output is None:
            write_outputs(output, given.participants, 69, list(ALL_TASKS))
            run_group(output)
        with explorer(output) as (address, _), chromium(Path(folder) / "profile") as browser:
            print("| what | time [s] |\n|---|---|")
            for name, act, done in _views(browser, address):
                began = time.perf_counter()
                act()
                while not done():
                    time.sleep(0.02)
                print(f"| {name} | {time.perf_counter() - began:.2f} |", flush=True)


def _views(browser: Browser, address: str) -> list[tuple[str, Callable[[], object], Callable[[], bool]]]:
    def traces() -> str:
        return str(browser.run(f"const p = {_SHOWN}; return p ? p.data.map((t) => t.name).join() : ''"))

    def title() -> str:
        return str(browser.run(f"const p = {_SHOWN}; return p ? p.layout.yaxis.title.text : ''"))

    def click(css: str, text: str) -> None:
        next(found for found in browser.find(css) if found.text.strip() == text).click()

    def choose(label: str, option: str) -> None:
        boxes = browser.find("[role=tabpanel] [data-testid=stSelectbox]")
        box = next(box for box in boxes if box.is_displayed() and box.text.startswith(label))
        box.find_element("css selector", "[role=combobox], input").click()
        click("[role=option]", option)

    def has_tabs() -> bool:
        return len(browser.find("[role=tab]")) == 5 and "participants in" in browser.driver.page_source

    return [
        ("first view", lambda: browser.open(address), has_tabs),
        ("curves drawn", lambda: click("[role=tab]", "Time-activity curves"), lambda: "liver" in traces()),
        ("colour by sex", lambda: choose("Colour by", "sex"), lambda: "liver, female" in traces()),
        ("SUL James", lambda: choose("Normalisation", "SUL James"), lambda: title() == "SUL James [g/mL]"),
        ("input functions", lambda: click("label", "input functions"), lambda: "descending" in traces()),
        ("Ki", lambda: click("[role=tab]", "Patlak"), lambda: title().startswith("Ki")),
    ]


if __name__ == "__main__":
    main()
