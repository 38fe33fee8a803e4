"""The search over pairs of encoding and N: every trial, or cheap probes first."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from raycrp.choices import Encoding, LabelerKind, Scope, Task
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.select import Selection
from raycrp.elicit.sweep import SweepResources, run_sweep
from raycrp.elicit.trial import Record, Trial, TrialSettings
from raycrp.run import RunFolder


@dataclass(frozen=True)
class SearchResult:
    """What a search has carried out.

    Args:
        records: Full trials, in the order of the search.
        probes: Probes, in the order of the search.
    """

    records: list[Record]
    probes: list[Record]

    @property
    def table(self) -> list[Record]:
        """One record for each pair of each task: the full trial where there is one."""
        full = {_pair(record): record for record in self.records}
        if not self.probes:
            return self.records
        return [full.get(_pair(probe), probe) for probe in self.probes]


def search_grid(
    trials: Sequence[Trial],
    *,
    rows: Mapping[Task, TaskRows],
    settings: TrialSettings,
    resources: SweepResources,
    selection: Selection,
    run: RunFolder,
) -> SearchResult:
    """Carry out every trial.

    Args:
        trials: The points of the search.
        rows: D_train by task.
        settings: What all trials share.
        resources: What they run on.
        selection: The rule that will pick among them.
        run: The run folder, with an absolute storage.
    """
    records = run_sweep(
        rows,
        trials=trials,
        settings=settings,
        resources=resources,
        selection=selection,
        run=run,
    )
    return SearchResult(records, probes=[])


def search_by_halving(
    trials: Sequence[Trial],
    *,
    num_survivors: int,
    rows: Mapping[Task, TaskRows],
    settings: TrialSettings,
    resources: SweepResources,
    selection: Selection,
    run: RunFolder,
) -> SearchResult:
    """Probe every pair with a head on the shared vectors, and carry out the best of each N alone.

    Survivors are compared at the same N, where accuracies compare, so that every rule finds the
    values of N that it chooses from. The rungs wait for each other: which trials survive must not
    depend on timing, or a killed search would end otherwise than an unbroken one. So this is the
    synchronous halving that ASHA is made from, and not ASHA, which judges by what has reported yet
    and would compare accuracies across tasks and N.

    Args:
        trials: The points of the search.
        num_survivors: Encodings of each N that are carried out in full.
        rows: D_train by task.
        settings: What all full trials share.
        resources: What trials run on.
        selection: The rule that will pick among the full trials.
        run: The run folder, with an absolute storage.

    Source: Successive halving: Jamieson, Talwalkar, AISTATS 2016, with the encodings as arms.
    """
    probes = run_sweep(
        rows,
        trials=[replace(trial, is_probe=True) for trial in trials],
        settings=_probe_settings(settings),
        resources=resources,
        selection=selection,
        run=run,
    )
    records = run_sweep(
        rows,
        trials=pick_survivors(
            trials, probes=probes, num_survivors=num_survivors, scope=selection.scope
        ),
        settings=settings,
        resources=resources,
        selection=selection,
        run=run,
        before=probes,
    )
    return SearchResult(records, probes)


def pick_survivors(
    trials: Sequence[Trial], *, probes: Sequence[Record], num_survivors: int, scope: Scope
) -> list[Trial]:
    """The trials whose probes name reaction types best, for each N.

    Args:
        trials: The points of the search.
        probes: Records of their probes, in the same order.
        num_survivors: How many encodings of each N survive.
        scope: ``task`` picks for each task on its own, ``reaction`` by the mean over tasks.

    Returns:
        The survivors in the order of ``trials``.
    """
    accuracies: dict[tuple[Any, ...], dict[Encoding, list[float]]] = defaultdict(dict)
    for trial, probe in zip(trials, probes, strict=True):
        of_contest = accuracies[_contest(trial, scope)]
        of_contest.setdefault(trial.encoding, []).append(probe["accuracy"])
    survivors = {
        contest: sorted(rivals, key=lambda encoding: -fmean(rivals[encoding]))[:num_survivors]
        for contest, rivals in accuracies.items()
    }
    return [trial for trial in trials if trial.encoding in survivors[_contest(trial, scope)]]


def _contest(trial: Trial, scope: Scope) -> tuple[Any, ...]:
    if scope is Scope.REACTION:
        return (trial.num_clusters,)
    return trial.task, trial.num_clusters


def _probe_settings(settings: TrialSettings) -> TrialSettings:
    llm_rt = replace(settings.llm_rt, kind=LabelerKind.HEAD, has_feedback=False)
    return replace(settings, max_rounds=1, llm_rt=llm_rt)


def _pair(record: Record) -> tuple[str, str, int]:
    return record["task"], record["encoding"], record["num_clusters"]
