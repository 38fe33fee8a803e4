from raycrp.choices import Encoding, Scope, Task
from raycrp.elicit.search import SearchResult, pick_survivors
from raycrp.elicit.trial import Trial, describe_trial, parse_trial

ACCURACIES = {
    (Encoding.OUTPUT, 3): 0.9,
    (Encoding.OUTPUT, 4): 0.5,
    (Encoding.CONCAT, 3): 0.8,
    (Encoding.CONCAT, 4): 0.6,
    (Encoding.DIFFERENCE, 3): 0.7,
    (Encoding.DIFFERENCE, 4): 0.6,
}
TRIALS = [Trial(Task.FORWARD, encoding, n) for encoding, n in ACCURACIES]
PROBES = [{"accuracy": accuracy} for accuracy in ACCURACIES.values()]


def names(trials):
    return [trial.trial_id for trial in trials]


def test_the_best_encoding_of_each_n_survives():
    # At N=4 two are equal: the first of the search survives.
    survivors = pick_survivors(TRIALS, probes=PROBES, num_survivors=1, scope=Scope.TASK)
    assert names(survivors) == ["forward-output-n3", "forward-concat-n4"]


def test_survivors_keep_the_order_of_the_search():
    survivors = pick_survivors(TRIALS, probes=PROBES, num_survivors=2, scope=Scope.TASK)
    assert names(survivors) == [
        "forward-output-n3",
        "forward-concat-n3",
        "forward-concat-n4",
        "forward-difference-n4",
    ]


def test_tasks_do_not_compete():
    others = [Trial(Task.REAGENT, trial.encoding, trial.num_clusters) for trial in TRIALS]
    worse = [{"accuracy": probe["accuracy"] / 2} for probe in PROBES]
    survivors = pick_survivors(
        [*TRIALS, *others], probes=[*PROBES, *worse], num_survivors=1, scope=Scope.TASK
    )
    assert names(survivors)[2:] == ["reagent-output-n3", "reagent-concat-n4"]


def test_tasks_that_share_reactions_share_the_survivors():
    # Means at N=3: output .45, concat .8, difference .4; at N=4: .65, .5, .35.
    others = [Trial(Task.REAGENT, trial.encoding, trial.num_clusters) for trial in TRIALS]
    of_reagent = [{"accuracy": a} for a in (0.0, 0.8, 0.8, 0.4, 0.1, 0.1)]
    survivors = pick_survivors(
        [*TRIALS, *others], probes=[*PROBES, *of_reagent], num_survivors=1, scope=Scope.REACTION
    )
    assert names(survivors) == [
        "forward-output-n4",
        "forward-concat-n3",
        "reagent-output-n4",
        "reagent-concat-n3",
    ]


def test_probes_stand_in_the_table_where_no_full_trial_is():
    probes = [describe_trial(Trial(Task.FORWARD, e, n, is_probe=True)) for e, n in ACCURACIES]
    full = [describe_trial(TRIALS[3])]
    table = SearchResult(full, probes).table
    assert [row["is_probe"] for row in table] == [True, True, True, False, True, True]
    assert [row["num_clusters"] for row in table] == [3, 4, 3, 4, 3, 4]


def test_a_trial_is_found_again_from_its_description():
    for is_probe in (False, True):
        trial = Trial(Task.REAGENT, Encoding.INNER_PRODUCT, 7, is_probe=is_probe)
        assert parse_trial({**describe_trial(trial), "accuracy": 0.5}) == trial
    assert trial.trial_id == "reagent-inner_product-n7-probe"
