import pytest

from raycrp.choices import Scope, SelectionRule
from raycrp.elicit.select import Selection, choose_trials, select_trial
from raycrp.errors import ElicitError

FIGURE_3A = {
    ("forward", "concat"): [0.95, 0.91, 0.92, 0.89, 0.77, 0.785, 0.79, 0.76, 0.75, 0.74],
    ("retrosynthesis", "concat"): [
        0.945, 0.905, 0.865, 0.80, 0.765, 0.735, 0.70, 0.715, 0.685, 0.655,
    ],
    ("reagent", "concat"): [0.945, 0.91, 0.835, 0.77, 0.785, 0.77, 0.735, 0.71, 0.635, 0.565],
    ("forward", "output"): [0.86, 0.84, 0.78, 0.77, 0.755, 0.76, 0.725, 0.655, 0.64, 0.61],
}  # fmt: skip
"""Accuracies of the paper's Figure 3a for N = 3 to 12."""


def figure_trials(task):
    return [
        {
            "trial_id": f"{task}-{encoding}-n{n}",
            "accuracy": accuracy,
            "information_bits": 0.0,
            "num_clusters": n,
        }
        for (of_task, encoding), accuracies in FIGURE_3A.items()
        if of_task == task
        for n, accuracy in zip(range(3, 13), accuracies, strict=True)
    ]


@pytest.mark.parametrize("task", ["forward", "retrosynthesis", "reagent"])
def test_accuracy_takes_the_smallest_n_of_figure_3a(task):
    selection = Selection(SelectionRule.ACCURACY)
    assert select_trial(figure_trials(task), selection=selection) == f"{task}-concat-n3"


@pytest.mark.parametrize(
    ("task", "expected"), [("forward", 12), ("retrosynthesis", 10), ("reagent", 10)]
)
def test_floor_takes_the_largest_n_of_figure_3a_above_it(task, expected):
    selection = Selection(SelectionRule.FLOOR, 0.70)
    assert select_trial(figure_trials(task), selection=selection) == f"{task}-concat-n{expected}"


def test_floor_out_of_reach_takes_the_highest_accuracy():
    selection = Selection(SelectionRule.FLOOR, 0.99)
    assert select_trial(figure_trials("reagent"), selection=selection) == "reagent-concat-n3"


def test_information_takes_the_most_bits():
    trials = figure_trials("reagent")
    trials[4]["information_bits"] = 1.5
    trials[6]["information_bits"] = 1.4
    selection = Selection(SelectionRule.INFORMATION)
    assert select_trial(trials, selection=selection) == "reagent-concat-n7"


def test_a_loser_never_wins_when_trials_are_added():
    trials = figure_trials("forward")
    for rule in SelectionRule:
        selection = Selection(rule, 0.77)
        final = select_trial(trials, selection=selection)
        position = [trial["trial_id"] for trial in trials].index(final)
        for end in range(position + 1, len(trials) + 1):
            assert select_trial(trials[:end], selection=selection) == final


def test_no_trials_are_refused():
    with pytest.raises(ElicitError, match="no trial"):
        select_trial([], selection=Selection(SelectionRule.ACCURACY))


def pair_trials(accuracies):
    return [
        {
            "trial_id": f"{task}-concat-n{n}",
            "task": task,
            "encoding": "concat",
            "num_clusters": n,
            "accuracy": accuracy,
            "information_bits": 0.0,
        }
        for (task, n), accuracy in accuracies.items()
    ]


TWO_TASKS = pair_trials(
    {("forward", 3): 0.9, ("forward", 4): 0.8, ("reagent", 3): 0.3, ("reagent", 4): 0.7}
)


def test_each_task_has_its_own_best_trial():
    chosen, beaten = choose_trials(
        TWO_TASKS, tasks=["forward", "reagent"], selection=Selection(SelectionRule.ACCURACY)
    )
    assert chosen == {"forward-concat-n3", "reagent-concat-n4"}
    assert beaten == {"forward-concat-n4", "reagent-concat-n3"}


def test_one_pair_for_all_tasks_by_the_mean():
    # Means: (.9 + .3) / 2 = .6 at N=3, (.8 + .7) / 2 = .75 at N=4.
    selection = Selection(SelectionRule.ACCURACY, scope=Scope.REACTION)
    chosen, beaten = choose_trials(TWO_TASKS, tasks=["forward", "reagent"], selection=selection)
    assert chosen == {"forward-concat-n4", "reagent-concat-n4"}
    assert beaten == {"forward-concat-n3", "reagent-concat-n3"}


def test_a_pair_is_judged_when_all_its_tasks_have_finished():
    selection = Selection(SelectionRule.ACCURACY, scope=Scope.REACTION)
    tasks = ["forward", "reagent"]
    assert choose_trials(TWO_TASKS[:2], tasks=tasks, selection=selection) == (set(), set())
    chosen, beaten = choose_trials(TWO_TASKS[:3], tasks=tasks, selection=selection)
    assert chosen == {"forward-concat-n3", "reagent-concat-n3"}
    assert beaten == set()
