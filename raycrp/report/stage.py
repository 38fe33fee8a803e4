"""The stage: one self-contained HTML page about the run."""

import logging
import time
from typing import Any

from raycrp.config import Config
from raycrp.report.contents import gather_contents
from raycrp.report.page import render_page
from raycrp.run import RunFolder

REPORT_PATH = "report/index.html"

logger = logging.getLogger(__name__)


def run_report(config: Config, run: RunFolder) -> dict[str, Any]:
    """Write the report of a run.

    Args:
        config: The resolved configuration.
        run: The run folder; whatever of it is missing is left out of the page.

    Returns:
        Counts, and the size of the page.
    """
    started = time.monotonic()
    contents = gather_contents(config, run)
    page = render_page(contents).encode()
    run.write_bytes(REPORT_PATH, page)
    num_examples = sum(len(examples) for examples in contents.examples.values())
    seconds = time.monotonic() - started
    logger.info("report: %s, %.2f MB, %.1f s", run.uri(REPORT_PATH), len(page) / 1e6, seconds)
    return {
        "rows_in": num_examples,
        "rows_out": num_examples,
        "rejected": 0,
        "seconds": seconds,
        "size_bytes": len(page),
    }
