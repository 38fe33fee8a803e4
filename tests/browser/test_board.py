"""The board in a real Chromium, over runs that go on while it is open."""

import psutil
import pytest
from board_runs import BoardRun, training_line
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from raycrp.board.export import export_board

pytestmark = pytest.mark.browser

ENCODINGS = ["output", "difference", "concat", "inner_product"]
TASKS = ["forward", "retrosynthesis", "reagent"]

FIRST_PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
SMALLEST_TEXT = """
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let smallest = Infinity;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    smallest = Math.min(smallest, parseFloat(getComputedStyle(element).fontSize));
  }
  return smallest;
"""
LOWEST_CONTRAST = """
  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] > 0.9) return color;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let lowest = [Infinity, ""];
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest("svg, script, style")) continue;
    const pair = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (contrast < lowest[0]) lowest = [contrast, texts.currentNode.data];
  }
  return lowest;
"""
FOCUS = """
  const element = document.activeElement;
  const marked = element.closest(".switch") ?? element;
  const style = getComputedStyle(marked);
  const name = element.value ?? (element.textContent.slice(0, 20) || element.tagName);
  return [name, style.outlineStyle, parseFloat(style.outlineWidth)];
"""


def new_run(tmp_path, *, tasks=("forward",), counts=tuple(range(3, 13)), **elicit):
    return BoardRun(tmp_path, encodings=ENCODINGS, counts=list(counts), tasks=tasks, **elicit)


def test_a_running_sweep_is_followed_without_a_reload(page, serve, tmp_path):
    run = new_run(tmp_path)
    run.finish("data")
    run.finish("embed")
    run.run_sweep(num_ended=20)
    url, _ = serve(run.folder)
    page.open(url)
    page.wait_for_figure("heat")
    assert len(page.cells()) == 40
    assert sum(value is not None for value in page.cells()) == 22
    assert len(page.ask("return [...document.querySelectorAll('#trials tbody tr')]")) == 40
    assert "20 of 40" in page.text("#head")
    assert "Present choice" in page.text("#choice").capitalize()
    page.ask("window.isTheSamePage = true")
    run.run_sweep(num_ended=38)
    page.wait_for_text("38 of 40", "#head")
    page.wait_for(lambda: None not in page.cells())
    assert page.ask("return window.isTheSamePage")
    assert page.complaints() == []
    assert page.hosts() <= {url.split("/")[2]}


def test_a_half_written_file_changes_nothing(page, serve, tmp_path):
    run = new_run(tmp_path)
    run.run_sweep(num_ended=38)
    run.write_cards("forward", "output", 3)
    url, _ = serve(run.folder)
    page.open(url)
    page.wait_for_text("amide formation 2", "#cards")
    cards = run.folder.read_bytes("elicit/rt_cards.parquet")
    run.folder.write_bytes("elicit/rt_cards.parquet", cards[:500])
    run.write_rounds(rest='{"trial_id": "forward-outp')
    page.wait_for_text("elicit/rt_cards.parquet", "#notice")
    assert "amide formation 2" in page.text("#cards")
    assert "38 of 40" in page.text("#head")
    run.folder.write_bytes("elicit/rt_cards.parquet", cards)
    page.wait_for(lambda: page.text("#notice") == "")
    assert page.complaints() == []


def test_an_empty_run_is_shown_kindly_and_fills(page, serve, tmp_path):
    run = new_run(tmp_path)
    url, _ = serve(run.folder)
    page.open(url)
    page.wait_for_text("The sweep has not started", "#sweep")
    page.wait_for_text("Training has not started", "#training")
    assert not page.ask("return document.querySelector('#heat').checkVisibility()")
    run.run_sweep(num_ended=1)
    run.write_training(100, validation_every=50)
    page.wait_for_figure("loss")
    page.wait_for(lambda: page.ask("return document.querySelector('#heat').checkVisibility()"))
    page.wait_for(lambda: page.ask("return document.querySelector('#heat').clientWidth") > 300)
    assert "has not started" not in page.text()
    assert page.complaints() == []


@pytest.mark.parametrize("width", [1280, 800])
def test_it_is_readable_at_common_widths(page, serve, tmp_path, width):
    run = new_run(tmp_path, tasks=TASKS)
    run.run_sweep(num_ended=118)
    run.write_cards("forward", "output", 3)
    run.write_training(1000, validation_every=100)
    url, _ = serve(run.folder)
    page.open(url, width=width)
    page.wait_for_figure("workers")
    assert page.ask(OVERFLOW) <= 0
    assert page.ask(SMALLEST_TEXT) >= 11
    contrast, text = page.ask(LOWEST_CONTRAST)
    assert contrast >= 4.5, text
    widths = page.ask("return [...document.querySelectorAll('.graph')].map((g) => g.clientWidth)")
    assert len(widths) == 6
    assert min(widths) >= 400


def test_keys_reach_everything_and_show_where_they_are(page, serve, tmp_path):
    run = new_run(tmp_path, tasks=TASKS)
    run.run_sweep(num_ended=118)
    url, _ = serve(run.folder)
    page.open(url)
    page.wait_for_figure("lines")
    stops = []
    for _ in range(8):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        stops.append(page.ask(FOCUS))
    assert [name for name, *_ in stops[:7]] == [
        *("Skip to the sweep", "Sweep", "Reaction types", "Trials", "Training"),
        *("forward", "accuracy"),
    ]
    assert all(style == "solid" and width >= 3 for _, style, width in stops), stops
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).perform()
    ActionChains(page.driver).key_up(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).perform()
    title = "return document.querySelector('#heat').querySelector('.cbtitle')?.textContent"
    page.wait_for(lambda: page.ask(title) == "bits")
    assert page.complaints() == []


def test_the_exported_page_needs_no_server(page, tmp_path):
    run = new_run(tmp_path, tasks=TASKS)
    run.run_sweep(num_ended=100)
    run.write_training(100, validation_every=50)
    export_board(run.folder)
    page.open(f"file://{run.folder.path('report/board.html')}", width=800)
    page.wait_for_figure("workers")
    assert len(page.cells()) == 40
    page.ask("document.querySelector('input[value=reagent]').click()")
    page.ask("document.querySelector('input[value=kappa]').click()")
    assert None in page.cells()
    assert "concat" in page.text("#trials")
    assert page.ask(OVERFLOW) <= 0
    assert page.complaints() == []
    assert page.hosts() == set()


def test_a_large_run_is_painted_at_once_and_memory_stays_flat(page, serve, tmp_path):
    run = new_run(tmp_path, tasks=TASKS, counts=range(2, 86))
    run.run_sweep(num_ended=1_000)
    run.write_training(1_000_000)
    url, process = serve(run.folder)
    page.open(url)
    page.wait_for_figure("loss")
    assert page.ask(FIRST_PAINT) < 3_000
    assert "1,000 of 1,008" in page.text("#head")
    assert page.ask("return document.querySelector('#loss').querySelectorAll('path').length") > 0
    before = psutil.Process(process.pid).memory_info().rss
    for block in range(5):
        first = 1_000_001 + 20_000 * block
        with run.segment(1_000 + block).open("w", encoding="utf-8") as stream:
            stream.writelines(training_line(n, 2_000_000) for n in range(first, first + 20_000))
        page.wait_for_text(f"{first + 19_999:,}", "#head")
    grown = psutil.Process(process.pid).memory_info().rss - before
    assert grown < 60 * 2**20
    assert page.complaints() == []
