import pytest

from raycrp.board.sweep import TrialState, build_sweep
from raycrp.config import Config

PAPER = [0.945, 0.905, 0.865, 0.80, 0.765, 0.735, 0.70, 0.715, 0.685, 0.655]
"""The paper's Figure 3a, retrosynthesis, concat, N = 3 to 12."""


def settings(**elicit):
    values = {"encodings": ["output", "concat"], "num_clusters": [4, 6], **elicit}
    tasks = {"tasks": ["forward", "reagent"]}
    return Config.model_validate({"data": tasks, "elicit": values}).model_dump(mode="json")


def line(task, encoding, count, accuracy, **more):
    probe = "-probe" if more.get("is_probe") else ""
    return {
        "trial_id": f"{task}-{encoding}-n{count}{probe}",
        "task": task,
        "encoding": encoding,
        "num_clusters": count,
        "round": 0,
        "accuracy": accuracy,
        "information_bits": 1.0,
        **more,
    }


def build(lines=(), *, finished=(), started=(), is_over=False, **elicit):
    return build_sweep(
        settings(**elicit), lines=lines, finished=finished, started=started, is_over=is_over
    )


def states(sweep, task="forward"):
    return {(t.encoding, t.num_clusters): t.state.value for t in sweep.of_task(task)}


class TestStates:
    def test_all_that_the_settings_ask_for_waits_at_first(self):
        sweep = build()
        assert len(sweep.trials) == sweep.num_in(TrialState.WAITING) == 8
        assert sweep.choices == {}

    def test_running_done_and_waiting(self):
        sweep = build(
            [line("forward", "output", 4, 0.8), line("forward", "output", 6, 0.7)],
            finished={"forward-output-n4"},
            started={"forward-output-n4", "forward-output-n6", "forward-concat-n4"},
        )
        assert states(sweep) == {
            ("output", 4): "done",
            ("output", 6): "running",
            ("concat", 4): "running",
            ("concat", 6): "waiting",
        }

    def test_a_collapsed_trial_was_stopped(self):
        lines = [line("forward", "output", 4, 0.9, has_collapsed=True)]
        [trial] = [t for t in build(lines, finished={"forward-output-n4"}).trials if t.best]
        assert (trial.state, trial.note) == (TrialState.STOPPED, "reaction types collapsed")

    def test_the_best_round_counts_and_all_are_kept(self):
        lines = [line("forward", "output", 4, a, round=i) for i, a in enumerate((0.5, 0.9, 0.7))]
        trial = build(lines).of_task("forward")[0]
        assert (trial.best["round"], len(trial.rounds)) == (1, 3)

    def test_what_the_settings_do_not_ask_for_is_shown_all_the_same(self):
        sweep = build([line("forward", "fingerprint", 9, 0.5)])
        assert sweep.encodings == ("output", "concat", "fingerprint")
        assert sweep.counts == (4, 6, 9)

    def test_time_left_follows_the_trials_that_have_ended(self):
        assert build().seconds_left(100) is None
        assert build(finished={"forward-output-n4", "forward-output-n6"}).seconds_left(100) == 300


HALVING = {"search": "halving", "max_rounds": 3, "survivors": 1}


class TestProbes:
    def probe(self, encoding, accuracy):
        return line("forward", encoding, 4, accuracy, is_probe=True)

    def test_a_probe_waits_until_the_survivors_are_known(self):
        lines = [self.probe("output", 0.6), self.probe("concat", 0.8)]
        ended = {"forward-output-n4-probe"}
        sweep = build(lines, finished=ended, **HALVING)
        assert states(sweep)["output", 4] == "waiting"
        assert states(sweep)["concat", 4] == "running"
        assert sweep.choices["forward"].trial.encoding == "concat"

    def test_a_probe_that_lost_was_stopped_and_is_no_longer_chosen(self):
        lines = [
            self.probe("output", 0.9),
            self.probe("concat", 0.8),
            line("forward", "concat", 4, 0.7),
        ]
        ended = {"forward-output-n4-probe", "forward-concat-n4-probe"}
        sweep = build(lines, finished=ended, **HALVING)
        trials = {t.encoding: t for t in sweep.of_task("forward") if t.num_clusters == 4}
        assert (trials["output"].state, trials["output"].note) == ("stopped", "lost as a probe")
        assert trials["concat"].state == "running"
        assert sweep.choices["forward"].trial.encoding == "concat"


class TestChoice:
    def paper(self, rule):
        lines = [
            line("forward", "concat", n, accuracy, information_bits=0.1 * n)
            for n, accuracy in enumerate(PAPER, start=3)
        ]
        return build(lines, rule=rule, accuracy_floor=0.70).choices["forward"]

    @pytest.mark.parametrize(
        ("rule", "count", "reason"),
        [
            ("accuracy", 3, "Highest accuracy of 10 trials: 0.945. Next: concat, N = 4"),
            ("floor", 10, "at least 0.70: 0.715. Above it the best is concat, N = 11, with 0.685"),
            ("information", 12, "Names the most bits: 1.20 of 10 trials. Next: concat, N = 11"),
        ],
    )
    def test_each_rule_says_why(self, rule, count, reason):
        choice = self.paper(rule)
        assert choice.trial.num_clusters == count
        assert reason in choice.reason

    def test_a_floor_that_nothing_reaches_is_said(self):
        choice = build([line("forward", "concat", 4, 0.5)], rule="floor").choices["forward"]
        assert choice.reason.startswith("No trial reaches the floor of 0.70")

    def test_a_rival_within_the_interval_is_said(self):
        lines = [
            line("forward", "concat", 4, 0.80, accuracy_low=0.75),
            line("forward", "output", 4, 0.78),
        ]
        assert build(lines).choices["forward"].reason.endswith("inside the interval of the best.")

    def test_one_pair_for_all_tasks_where_the_scope_is_the_reaction(self):
        lines = [
            line("forward", "output", 4, 0.9),
            line("reagent", "output", 4, 0.3),
            line("forward", "concat", 4, 0.7),
            line("reagent", "concat", 4, 0.7),
            line("forward", "concat", 6, 1.0),
        ]
        choices = build(lines, scope="reaction").choices
        assert {c.trial.trial_id for c in choices.values()} == {
            "forward-concat-n4",
            "reagent-concat-n4",
        }
