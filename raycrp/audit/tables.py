"""What an audit found, as Markdown and JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from raycrp.audit.labels import ORACLE_RTS, LabelTest
from raycrp.audit.leak import View
from raycrp.audit.scores import MEASURE, ConditionScore, Survival
from raycrp.choices import AuditSource
from raycrp.evaluate.bootstrap import Interval
from raycrp.evaluate.tables import ALL_TASKS, format_interval

_BASELINES = {
    AuditSource.NONE: "prompts without RTs",
    AuditSource.SHUFFLED: "shuffled RTs",
    AuditSource.CONSTANT: "one RT for all",
}

Table = Sequence[Sequence[str]]
"""Rows of cells; the first row is the head."""

_LEAK_NOTE = (
    "A probe learns to read labels off the input of a row, off its output, and off both. What was "
    "named from the input alone cannot be read off the output better than off the input, nor does "
    "the output add to the input. Oracle RTs are there to show what a leak looks like. Accuracies "
    "and bits are on rows the probe did not learn from."
)
_SOURCE_NOTE = (
    "Strict exact match of the best answer, plain beam search, the same rows and decoding in every "
    "line. Brackets hold 95 % bootstrap intervals over reactions; differences are paired."
)
_SOURCE_NOTES = {
    "predicted": "named by LLM-RT from the input: the method",
    "none": "the prompt names no RT",
    "shuffled": "predicted RTs, dealt out anew among the rows of a task",
    "constant": "the most frequent RT for every row",
    "oracle": "from the true pair: an upper bound, never a result",
    "own": "as the model was trained, without RTs",
}


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Args:
        facts: What was audited, by name.
        scores: Scores of every condition, the first condition first.
        survivals: What part of a gain survives, by task; empty in a model without RTs.
        leaks: Whether labels can be read off answers.
        oracle_consistency: By task, share of training rows that the oracle names as k-means did.
    """

    facts: Mapping[str, str]
    scores: Sequence[ConditionScore]
    survivals: Sequence[Survival]
    leaks: Sequence[LabelTest]
    oracle_consistency: Mapping[str, float]


def audit_as_json(audit: Audit) -> dict[str, Any]:
    """An audit, JSON-ready, with its sentences and the rows of its tables."""
    scores: dict[str, Any] = {}
    for each in audit.scores:
        block = scores.setdefault(each.task, {}).setdefault(each.condition, {})
        metrics = block.setdefault(each.block, {})
        metrics[each.metric] = {
            "score": asdict(each.score),
            "difference": None if each.difference is None else asdict(each.difference),
            "num_rows": each.num_rows,
            "num_reactions": each.num_reactions,
        }
    return {
        "facts": dict(audit.facts),
        "verdict": survival_sentence(audit.survivals),
        "leak_verdict": leak_sentence(audit.leaks),
        "scores": scores,
        "survival": [asdict(each) for each in audit.survivals],
        "leaks": [{**asdict(each), "leaks": each.leaks} for each in audit.leaks],
        "oracle_consistency": dict(audit.oracle_consistency),
        "source_table": source_table(audit),
        "difference_table": difference_table(audit),
        "leak_table": leak_table(audit),
    }


def audit_as_markdown(audit: Audit) -> str:
    """An audit as Markdown; the sources and the sentence on what survives come last."""
    lines = ["# Where the gain comes from", ""]
    lines += [f"- {name}: {value}" for name, value in audit.facts.items()]
    if audit.leaks:
        lines += ["", "## Can labels be read off the answer?", "", _LEAK_NOTE, ""]
        lines += _markdown(leak_table(audit))
        lines += ["", leak_sentence(audit.leaks)]
    lines += ["", "## The same rows under every source of the RT", "", _SOURCE_NOTE, ""]
    lines += [
        f"- {name}: {_SOURCE_NOTES[name]}"
        for name in _conditions(audit.scores)
        if name in _SOURCE_NOTES
    ]
    lines += ["", f"Difference to {_conditions(audit.scores)[0]}, paired:", ""]
    lines += [*_markdown(difference_table(audit)), "", "Strict exact match:", ""]
    lines += _markdown(source_table(audit))
    if audit.survivals:
        lines += ["", survival_sentence(audit.survivals)]
    return "\n".join([*lines, ""])


def source_table(audit: Audit) -> Table:
    """Strict exact match: a row a condition, a column a task."""
    return _score_table(audit.scores, lambda each: each.score)


def difference_table(audit: Audit) -> Table:
    """Its difference to the first condition."""
    head, _, *rows = _score_table(audit.scores, lambda each: each.difference)
    return [head, *rows]


def leak_table(audit: Audit) -> Table:
    """What probes read of the labels: a row a task and kind of label."""
    head = [
        "labels",
        "task",
        "rows",
        "off the input",
        "off the output",
        "off both",
        "output minus input",
        "both minus input",
        "bits, input",
        "bits, output",
        "named again from the input",
        "leak",
    ]
    return [head, *(_leak_row(each) for each in audit.leaks)]


def survival_sentence(survivals: Sequence[Survival]) -> str:
    """What part of a gain survives, in one sentence; about all tasks where there are several."""
    if not survivals:
        return "The model was trained without reaction types, so that there is no gain to trace."
    last = survivals[-1]
    where = "Over all tasks" if last.task == ALL_TASKS else f"In the task {last.task}"
    baseline = _BASELINES[AuditSource(last.baseline)]
    oracle, predicted = format_interval(last.oracle_gain), format_interval(last.predicted_gain)
    if last.part is None:
        return (
            f"{where}, RTs taken from the answer itself raise exact match over {baseline} by "
            f"{oracle}, which may be nothing, and RTs named from the input by {predicted}: there "
            "is no gain of which a part could survive."
        )
    return (
        f"{where}, RTs taken from the answer itself raise exact match over {baseline} by "
        f"{oracle}, and RTs named from the input by {predicted}: "
        f"{format_interval(last.part)} of the gain survives."
    )


def leak_sentence(tests: Sequence[LabelTest]) -> str:
    """Whether labels leak, in one sentence."""
    tested = [test for test in tests if test.labels != ORACLE_RTS]
    if not tested:
        return "No labels were there to test."
    leaking = [test for test in tested if test.leaks]
    if leaking:
        names = ", ".join(f"{test.labels} ({test.task})" for test in leaking)
        return f"LEAK: the answer tells more than the input does about {names}."
    names = ", ".join(dict.fromkeys(test.labels for test in tested))
    return f"No leak found: the answer tells no more than the input does about {names}."


def _score_table(
    scores: Sequence[ConditionScore], value: Callable[[ConditionScore], Interval | None]
) -> Table:
    shown = [each for each in scores if each.metric == MEASURE]
    tasks = list(dict.fromkeys(each.task for each in shown))
    counts = {each.task: each.num_rows for each in shown}
    cells = {(each.condition, each.task): value(each) for each in shown}
    head = ["RT in the prompt", *(f"{task} (n = {counts[task]:,})" for task in tasks)]
    rows = [[name, *(_cell(cells[name, task]) for task in tasks)] for name in _conditions(scores)]
    return [head, *rows]


def _cell(interval: Interval | None) -> str:
    return "" if interval is None else format_interval(interval)


def _leak_row(label: LabelTest) -> list[str]:
    test = label.test
    return [
        label.labels,
        label.task,
        f"{test.num_rows:,}",
        *(format_interval(test.accuracies[view]) for view in View),
        format_interval(test.output_gain),
        format_interval(test.both_gain),
        format_interval(test.bits[View.INPUT]),
        format_interval(test.bits[View.OUTPUT]),
        "" if label.reproduced is None else f"{label.reproduced:.1%}",
        "yes" if label.leaks else "no",
    ]


def _conditions(scores: Sequence[ConditionScore]) -> list[str]:
    return list(dict.fromkeys(each.condition for each in scores))


def _markdown(table: Table) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in table]
    lines.insert(1, "|" + " --- |" * len(table[0]))
    return lines
