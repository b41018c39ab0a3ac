"""A real browser for tests of pages: what it logged, what it asked the network for, whether pictures show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

LOCAL_SCHEMES = {"file", "data", "blob", "about", "devtools", "chrome"}
LOCAL_HOSTS = {"localhost", "127.0.0.1"}

# Share of pixels that may have one colour in a picture that shows something.
_BLANK_SHARE = 0.999

_COUNT_PIXELS = """
const [image, done] = arguments;
image.decode().then(() => {
  const width = 200, height = Math.max(1, Math.round(200 * image.naturalHeight / image.naturalWidth));
  const canvas = document.createElement('canvas');
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext('2d');
  context.fillStyle = 'white'; context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  const data = context.getImageData(0, 0, width, height).data, counts = {};
  for (let i = 0; i < data.length; i += 4) {
    const colour = data[i] + ',' + data[i + 1] + ',' + data[i + 2];
    counts[colour] = (counts[colour] || 0) + 1;
  }
  done(Math.max(...Object.values(counts)) / (width * height));
}, fault => done(2));
"""


class Browser:
    """A page in headless Chromium, through its driver."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page: Path | str, *, width: int = 1280, height: int = 1600) -> None:
        """Open a file or an address in a window of some size."""
        # Chromium makes no window narrower than 500 px; an emulated screen may be.
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get(page.as_uri() if isinstance(page, Path) else page)

    def run(self, script: str, *arguments):
        """What a piece of JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, css: str) -> list:
        """The elements that a CSS selector finds."""
        return self.driver.find_elements("css selector", css)

    def console_errors(self) -> list[str]:
        """What went wrong on the page since it was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def outside_requests(self) -> list[str]:
        """The addresses off this machine that were asked for since it was last asked."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = urlsplit(message["params"]["request"]["url"])
                if address.scheme not in LOCAL_SCHEMES and address.hostname not in LOCAL_HOSTS:
                    found.append(address.geturl())
        return found

    def blank_pictures(self) -> list[str]:
        """The alternative texts of pictures that failed to load or show one colour only."""
        blank = []
        for image in self.find("img"):
            if self.driver.execute_async_script(_COUNT_PIXELS, image) > _BLANK_SHARE:
                blank.append(image.get_attribute("alt") or image.get_attribute("src")[:80])
        return blank

    def overflow_px(self) -> int:
        """How far the page is wider than its window."""
        return self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        self.driver.save_screenshot(str(path))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser of its own profile in a folder; skips the test where Chromium or its driver is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("needs chromium and chromedriver (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", "--allow-file-access-from-files", f"--user-data-dir={folder}"),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    running = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(running)
    finally:
        running.quit()
