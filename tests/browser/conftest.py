"""Debian's Chromium without a window, and boards served to it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

# Tests are imported by path, so modules beside them are found only if their folder is named.
sys.path.insert(0, str(Path(__file__).parent))

TIMEOUT_S = 150


class Page:
    """A page in Chromium, and short ways to ask it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url, *, width=1280, height=900):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get_log("browser")
        self.driver.get(url)

    def ask(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def text(self, selector="body"):
        return self.ask("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def wait_for(self, condition, *, timeout_s=TIMEOUT_S):
        WebDriverWait(self.driver, timeout_s, poll_frequency=0.1).until(lambda _: condition())

    def wait_for_text(self, text, selector="body"):
        self.wait_for(lambda: text in self.text(selector))

    def wait_for_figure(self, name):
        script = f"""
          const plot = document.querySelector("#{name} .js-plotly-plot, #{name}.js-plotly-plot");
          return !!plot?.data && !!plot.querySelector(".overplot .mlayer");
        """
        self.wait_for(lambda: self.ask(script))

    def cells(self):
        """Values of the heat map that is drawn."""
        plot = "document.querySelector('#heat .js-plotly-plot, #heat.js-plotly-plot')"
        return [value for row in self.ask(f"return {plot}.data[0].z") for value in row]

    def complaints(self):
        """Lines of the browser's console."""
        return [line["message"] for line in self.driver.get_log("browser")]

    def hosts(self):
        """Hosts that anything was fetched from."""
        names = self.ask("return performance.getEntriesByType('resource').map((each) => each.name)")
        return {match.group(1) for name in names if (match := re.match(r"https?://([^/]+)", name))}


@pytest.fixture(scope="session")
def driver():
    browser, service = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or service is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    driver.set_script_timeout(TIMEOUT_S)
    yield driver
    driver.quit()


@pytest.fixture
def page(driver):
    return Page(driver)


@pytest.fixture
def serve(driver):
    """Starts ``raycrp board`` on a run folder; gives its URL and its process."""
    started = []

    def _serve(folder):
        process = subprocess.Popen(
            [sys.executable, "-m", "raycrp", "board", folder.path(), "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        return found.group(), process

    yield _serve
    # A page that is left open would ask a server that is gone.
    driver.get("about:blank")
    for process in started:
        process.terminate()
        process.wait(timeout=30)
