import sys
from pathlib import Path

# Tests are imported by path, so modules beside them are found only if their folder is named.
for folder in (Path(__file__).parent, Path(__file__).parents[1] / "integration"):
    sys.path.insert(0, str(folder))


def pytest_terminal_summary(terminalreporter):
    """The table of events, above pytest's last line."""
    from harness import OUTCOMES

    if OUTCOMES:
        terminalreporter.write_line("")
        terminalreporter.write_line(f"{'event':<36} {'steps lost':>10} {'seconds to recover':>19}")
        for outcome in OUTCOMES:
            terminalreporter.write_line(
                f"{outcome.event:<36} {outcome.steps_lost:>10} {outcome.seconds:>19.1f}"
            )


def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    session.config.stash_counts = {
        key: len(reporter.stats.get(key, [])) for key in ("passed", "failed", "error")
    }


def pytest_unconfigure(config):
    counts = getattr(config, "stash_counts", None)
    if counts and sum(counts.values()):
        num_failed = counts["failed"] + counts["error"]
        sys.stdout.write(f"{counts['passed']} passed, {num_failed} failed\n")
