"""Training on tiny models: launchers agree, a resumed run equals an unbroken one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import make_config, write_prompted_run

from raycrp.choices import InstructionChoice, Task
from raycrp.errors import ClusterError, TrainError
from raycrp.model.t5 import load_backbone
from raycrp.run import RunFolder
from raycrp.schemas import Split
from raycrp.tracking import read_metrics
from raycrp.train import batches, validation, worker
from raycrp.train.checkpoint import manifest_name, stored_checkpoints
from raycrp.train.export import export_model, write_model_card
from raycrp.train.session import CHECKPOINT_FOLDERS, LOCAL_DIR, LocalSession
from raycrp.train.setup import WorkerSettings
from raycrp.train.tokens import TOKENS_DIR
from raycrp.train.trainer import join_single_process_group, train_model
from raycrp.train.trials import RESULT_FILE
from raycrp.train.worker import run_worker

pytestmark = pytest.mark.integration

NUM_ROWS = 180
TRAIN = {
    "launcher": "local",
    "num_workers": 2,
    "batch_size": 16,
    "max_steps": 14,
    "eval_every_steps": 4,
    "log_every_steps": 1,
    "learning_rate": 3e-4,
    "warmup_fraction": 0.5,
    "num_checkpoints": 5,
}


@pytest.fixture(scope="module")
def prompted(tmp_path_factory):
    """A run folder as the prompt stage leaves it, with the token table."""
    folder = tmp_path_factory.mktemp("runs")
    config = make_config(folder)
    write_prompted_run(config, num_train=NUM_ROWS // 3, num_validation=6)
    return Path(folder) / "test"


@pytest.fixture
def start(prompted, tmp_path):
    """Settings of training in a fresh copy of the run folder."""

    def make(name="run", *, refresh_steps=5, **train):
        if not (tmp_path / name).exists():
            shutil.copytree(prompted, tmp_path / name)
        config = make_config(tmp_path, train=TRAIN | train)
        return WorkerSettings(
            run=RunFolder(str(tmp_path), name),
            train=config.train,
            instruction=InstructionChoice.ADAPTIVE,
            refresh_steps=refresh_steps,
            seed=0,
        )

    return make


def loss_curve(settings):
    lines = read_metrics(settings.run)
    return {
        (line["step"], name): line[name]
        for line in lines
        for name in ("loss", "validation_loss")
        if name in line
    }


def assert_same_curve(found, expected, *, tolerance):
    assert found.keys() == expected.keys()
    difference = max(abs(found[key] - expected[key]) for key in expected)
    assert difference <= tolerance, f"loss curves differ by {difference:.2e}"


class Killed(BaseException):
    """Stands for the end of a process."""


class KilledSession(LocalSession):
    """Dies right after the checkpoint of a step."""

    def __init__(self, run, *, at_step):
        super().__init__(run, num_checkpoints=5)
        self._at_step = at_step

    def report(self, metrics, *, step, folder):
        super().report(metrics, step=step, folder=folder)
        if step == self._at_step:
            raise Killed


def train_until_killed(settings, *, at_step):
    from raycrp.train.deepspeed import prepare_process

    prepare_process(use_gpu=False)
    join_single_process_group(use_gpu=False)
    with pytest.raises(Killed):
        run_worker(settings, session=KilledSession(settings.run, at_step=at_step))


@pytest.fixture(scope="module")
def unbroken(prompted, tmp_path_factory):
    """The loss curve of a training that nothing happens to."""
    folder = tmp_path_factory.mktemp("unbroken")
    shutil.copytree(prompted, folder / "run")
    settings = WorkerSettings(
        run=RunFolder(str(folder), "run"),
        train=make_config(folder, train=TRAIN).train,
        instruction=InstructionChoice.ADAPTIVE,
        refresh_steps=5,
        seed=0,
    )
    train_model(settings)
    return settings


def test_training_learns_and_leaves_its_result(unbroken):
    curve = loss_curve(unbroken)
    assert [step for step, name in curve if name == "loss"] == list(range(1, 15))
    assert [step for step, name in curve if name == "validation_loss"] == [4, 8, 12, 14]
    losses = [curve[step, "validation_loss"] for step in (4, 8, 12, 14)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[-1] > 0.1
    result = unbroken.run.read_json(RESULT_FILE)
    assert (result["step"], result["stop_reason"]) == (14, "all steps done")
    assert (result["num_rows"], result["num_too_long"]) == (NUM_ROWS, 0)


def test_bf16_on_a_cpu_follows_fp32(unbroken, start):
    settings = start(precision="bf16")
    train_model(settings)
    assert_same_curve(loss_curve(settings), loss_curve(unbroken), tolerance=0.05)
    assert loss_curve(settings) != loss_curve(unbroken)
    assert settings.run.read_json(RESULT_FILE)["precision"] == "bf16"


def test_resumed_training_equals_an_unbroken_one(unbroken, start):
    settings = start()
    train_until_killed(settings, at_step=8)
    assert max(step for step, _ in loss_curve(settings)) == 8
    train_model(settings)
    assert_same_curve(loss_curve(settings), loss_curve(unbroken), tolerance=1e-6)


def keep_few_reagent_rows(run, *, num_rows):
    """Leave most of one task's training rows out, so that tasks are of unlike size."""
    path = f"{TOKENS_DIR}/shard-{Split.TRAIN}.parquet"
    rows = run.read_table(path)
    places = np.flatnonzero(rows["task"].to_numpy() == list(Task).index(Task.REAGENT))
    run.write_table(path, rows.take(np.setdiff1d(np.arange(len(rows)), places[num_rows:])))


def test_unlike_tasks_selected_by_exact_answers_survive_a_kill(start, unbroken, monkeypatch):
    exact = {4: 0.2, 8: 0.5, 12: 0.3, 14: 0.4}
    decide = worker.next_progress

    def with_exact_answers(progress, *, metrics, **rest):
        """So small a model has none of its own."""
        metrics["validation_exact"] = exact[progress.step]
        return decide(progress, metrics=metrics, **rest)

    monkeypatch.setattr(worker, "next_progress", with_exact_answers)
    settings = {
        name: start(name, task_temperature=3, select_by="exact") for name in ("whole", "killed")
    }
    for each in settings.values():
        keep_few_reagent_rows(each.run, num_rows=10)
    train_model(settings["whole"])
    train_until_killed(settings["killed"], at_step=12)
    train_model(settings["killed"])
    curves = [loss_curve(each) for each in settings.values()]
    assert_same_curve(*curves, tolerance=1e-6)
    assert curves[0] != loss_curve(unbroken)
    results = [each.run.read_json(RESULT_FILE) for each in settings.values()]
    assert results[0] == results[1]
    # By the loss, which falls all the way, it would be the last.
    assert (results[0]["num_rows"], results[0]["best_step"]) == (NUM_ROWS * 2 // 3 + 10, 8)
    weights = [load_backbone(each.run.path("train/best"))[0] for each in settings.values()]
    assert_same_weights(*weights)


def assert_same_weights(first, second):
    others = second.state_dict()
    assert all(torch.equal(value, others[name]) for name, value in first.state_dict().items())


def test_damaged_newest_checkpoint_is_stepped_back_from(unbroken, start):
    settings = start()
    train_until_killed(settings, at_step=8)
    (path,) = Path(settings.run.path(f"{LOCAL_DIR}/checkpoint_00000008")).rglob("*optim_states.pt")
    path.write_bytes(path.read_bytes()[:1_000])
    train_model(settings)
    assert_same_curve(loss_curve(settings), loss_curve(unbroken), tolerance=1e-6)


def test_finished_training_is_not_trained_again(start):
    settings = start(max_steps=4)
    train_model(settings)
    before = loss_curve(settings)
    settings.run.delete(RESULT_FILE)
    train_model(settings)
    assert loss_curve(settings) == before
    assert settings.run.read_json(RESULT_FILE)["step"] == 4


class NoticedSession(LocalSession):
    """Hears before a step that its node goes, and dies in the end.

    Args:
        run: The run folder.
        at_step: The step.
        dies_validated: Whether it dies once the step is validated, before that is saved; else as
            soon as the step is saved.
    """

    def __init__(self, run, *, at_step, dies_validated):
        super().__init__(run, num_checkpoints=5)
        self._at_step = at_step
        self._dies_validated = dies_validated
        self._num_looks = 0
        self.had_validated = []

    def seconds_left(self):
        self._num_looks += 1
        return 100.0 if self._num_looks >= self._at_step else None

    def report(self, metrics, *, step, folder):
        if step == self._at_step:
            self.had_validated.append(metrics["validated_step"] == step)
            if len(self.had_validated) == 2:
                raise Killed
        super().report(metrics, step=step, folder=folder)
        if step == self._at_step and not self._dies_validated:
            raise Killed


@pytest.mark.parametrize("is_killed_later", [False, True])
def test_a_node_that_goes_waits_for_no_validation(unbroken, start, monkeypatch, is_killed_later):
    from raycrp.train import due
    from raycrp.train.deepspeed import prepare_process

    monkeypatch.setattr(due, "_CHECK_EVERY_S", 1e-6)  # A look at the clock after each step.
    settings = start()
    prepare_process(use_gpu=False)
    join_single_process_group(use_gpu=False)
    session = NoticedSession(settings.run, at_step=8, dies_validated=is_killed_later)
    with pytest.raises(Killed):
        run_worker(settings, session=session)
    assert session.had_validated == [False, True][: 1 + is_killed_later]
    steps = [step for step, name in loss_curve(settings) if name == "validation_loss"]
    assert steps == ([4, 8] if is_killed_later else [4])
    train_model(settings)
    assert_same_curve(loss_curve(settings), loss_curve(unbroken), tolerance=1e-6)
    places = [(line["step"], "loss" in line) for line in read_metrics(settings.run)]
    assert len(places) == len(set(places))
    found, expected = (each.run.read_json(RESULT_FILE) for each in (settings, unbroken))
    assert found.pop("best_loss") == pytest.approx(expected["best_loss"], abs=1e-6)
    assert found.items() <= expected.items()


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_zero_stages_agree(unbroken, start, zero_stage):
    settings = start(zero_stage=zero_stage)
    train_model(settings)
    assert_same_curve(loss_curve(settings), loss_curve(unbroken), tolerance=1e-5)
    assert len(gradient_norms(settings)) == 14
    assert gradient_norms(settings) == pytest.approx(gradient_norms(unbroken), rel=1e-4)


def gradient_norms(settings):
    return [line["gradient_norm"] for line in read_metrics(settings.run) if "loss" in line]


def test_the_weights_of_the_most_exact_answers_are_kept(unbroken, start, monkeypatch):
    from transformers import AutoModelForSeq2SeqLM

    shares = iter([0.25, 0.5, 0.25, 0.375])

    def validate(*args, **kwargs):
        return validation.validate(*args, **kwargs) | {"validation_exact": next(shares)}

    monkeypatch.setattr(worker, "validate", validate)
    settings = start(select_by="exact")
    train_model(settings)
    result = settings.run.read_json(RESULT_FILE)
    assert (result["best_step"], result["best_exact"]) == (8, 0.5)
    assert result["stop_reason"].startswith("no higher validation exact match")
    assert result["best_loss"] == pytest.approx(loss_curve(unbroken)[8, "validation_loss"])
    model = AutoModelForSeq2SeqLM.from_pretrained(settings.run.path("train/best"))
    assert validation_loss(model, settings) == pytest.approx(result["best_loss"], abs=1e-4)


def test_an_optimizer_in_the_nodes_memory_agrees_and_may_come_back(unbroken, start):
    train_until_killed(start(offload=True), at_step=8)
    settings = start(offload=False)
    train_model(settings)
    assert_same_curve(loss_curve(settings), loss_curve(unbroken), tolerance=1e-5)


def test_the_best_weights_give_the_best_validation_loss(unbroken):
    from transformers import AutoModelForSeq2SeqLM

    result = unbroken.run.read_json(RESULT_FILE)
    model = AutoModelForSeq2SeqLM.from_pretrained(unbroken.run.path("train/best"))
    again = validation_loss(model, unbroken)
    assert again == pytest.approx(result["best_loss"], abs=1e-4)


def test_parts_encoded_apart_are_trained_and_kept_in_the_model(tmp_path):
    config = make_config(
        tmp_path,
        prompt={"fusion": "hidden"},
        train=TRAIN | {"max_steps": 4, "num_workers": 1, "learning_rate": 1e-2},
    )
    run = write_prompted_run(config, num_train=20, num_validation=6)
    # Without live instructions the prompts of the prompt stage are what is validated.
    settings = WorkerSettings(
        run=run,
        train=config.train,
        instruction=InstructionChoice.ADAPTIVE,
        refresh_steps=None,
        seed=0,
    )
    train_model(settings)
    model, _ = load_backbone(run.path("train/best"))
    best_loss = run.read_json(RESULT_FILE)["best_loss"]
    assert validation_loss(model, settings) == pytest.approx(best_loss, abs=5e-5)
    (run.local_dir("train/best") / "config.json").write_text(
        model.config.to_json_string().replace("hidden", "text")
    )
    read_whole, _ = load_backbone(run.path("train/best"))
    assert validation_loss(read_whole, settings) != pytest.approx(best_loss, abs=2e-4)


def validation_loss(model, settings):
    """By transformers' own loss, a row at a time, with the instructions of the prompt stage."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(settings.run.path("train/best"))
    rows = settings.run.read_table("prompt/validation").to_pylist()
    total, count = 0.0, 0
    for row in rows:
        labels = tokenizer(row["output"], return_tensors="pt").input_ids
        prompt = tokenizer(row["prompt"], return_tensors="pt")
        with torch.no_grad():
            loss = model.eval()(**prompt, labels=labels).loss
        total += float(loss) * labels.numel()
        count += labels.numel()
    return total / count


def test_rows_too_long_are_dropped_and_counted(start):
    settings = start(max_steps=2, eval_every_steps=2, max_output_tokens=12)
    train_model(settings)
    result = settings.run.read_json(RESULT_FILE)
    assert 0 < result["num_too_long"] < NUM_ROWS
    assert result["num_rows"] + result["num_too_long"] == NUM_ROWS


def test_rows_too_long_are_cut_and_counted(start):
    settings = start(max_steps=2, eval_every_steps=2, max_output_tokens=12, too_long="cut")
    train_model(settings)
    result = settings.run.read_json(RESULT_FILE)
    assert 0 < result["num_cut"] < NUM_ROWS
    assert (result["num_rows"], result["num_too_long"]) == (NUM_ROWS, 0)


def test_limits_that_leave_no_row_are_refused(start):
    with pytest.raises(TrainError, match=r"all 180 train rows are longer than .*max_input_tokens"):
        train_model(start(max_input_tokens=8))


def test_checkpoint_of_another_model_is_refused(start):
    settings = start(max_steps=4)
    train_model(settings)
    path = Path(settings.run.path("prompt/llm_crp/config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dropout_rate": 0.3}))
    with pytest.raises(TrainError, match="another model or tokenizer"):
        train_model(settings)


def test_export_is_a_model_that_transformers_loads(unbroken):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    config = make_config(unbroken.run.storage)
    result = unbroken.run.read_json(RESULT_FILE)
    export_model(config, unbroken.run, result=result)
    folder = Path(unbroken.run.path("model"))
    assert (folder / "model.safetensors").exists()
    assert (folder / "llm_rt/reagent/labeler.json").exists()
    assert len(AutoTokenizer.from_pretrained(folder)) > 50
    assert AutoModelForSeq2SeqLM.from_pretrained(folder).config.d_model == 32
    card = (folder / "README.md").read_text()
    assert f"{result['best_loss']:.4f} nats per token" in card
    assert "Not evaluated yet" in card
    write_model_card(unbroken.run, scores={"forward": {"exact_match": 0.625}})
    assert "| forward | 0.625 |" in (folder / "README.md").read_text()


def test_fp16_trains_like_fp32(unbroken, start):
    settings = start(precision="fp16")
    train_until_killed(settings, at_step=8)
    train_model(settings)
    assert_same_curve(loss_curve(settings), loss_curve(unbroken), tolerance=0.02)
    lines = read_metrics(settings.run)
    assert lines[0]["loss_scale"] == 2.0**16
    assert lines[-2]["skipped_steps"] == 0
    assert settings.run.read_json(RESULT_FILE)["precision"] == "fp16"


def test_a_loss_beyond_fp16_costs_its_own_step_alone(start, monkeypatch):
    calls = []

    def summed_loss(*args, **kwargs):
        calls.append(None)
        return batches.summed_loss(*args, **kwargs) * (float("inf") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(worker, "summed_loss", summed_loss)
    settings = start(precision="fp16", max_steps=4, num_workers=1, log_every_steps=2)
    train_model(settings)
    assert settings.run.read_json(RESULT_FILE)["stop_reason"] == "all steps done"
    lines = [line for line in read_metrics(settings.run) if "epoch" in line]
    assert [line["skipped_steps"] for line in lines] == [0, 1]
    assert [{"loss", "gradient_norm"} <= line.keys() for line in lines] == [True, False]


def test_averaged_weights_are_validated_and_resumed(unbroken, start):
    whole, broken = start("whole", ema_decay=0.8), start("broken", ema_decay=0.8)
    train_model(whole)
    train_until_killed(broken, at_step=8)
    train_model(broken)
    assert_same_curve(loss_curve(broken), loss_curve(whole), tolerance=1e-6)
    assert loss_curve(whole)[14, "loss"] == loss_curve(unbroken)[14, "loss"]
    assert loss_curve(whole)[14, "validation_loss"] != loss_curve(unbroken)[14, "validation_loss"]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"precision": "fp16", "zero_stage": 0}, "fp16 needs train.zero_stage 1, 2 or 3"),
        ({"ema_decay": 0.9, "zero_stage": 3}, "ema_decay needs whole weights"),
        ({"num_workers": 3}, r"batch_size \(16\) does not divide among 3 workers"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(start, train, message):
    with pytest.raises(TrainError, match=message):
        train_model(start(**train))


@pytest.fixture(scope="module")
def on_ray(prompted, local_ray, tmp_path_factory):
    """What two Ray workers leave after training."""
    folder = tmp_path_factory.mktemp("ray")
    shutil.copytree(prompted, folder / "run")
    settings = WorkerSettings(
        run=RunFolder(str(folder), "run"),
        train=make_config(folder, train=TRAIN | {"launcher": "ray"}).train,
        instruction=InstructionChoice.ADAPTIVE,
        refresh_steps=5,
        seed=0,
    )
    train_model(settings)
    return settings


def test_two_ray_workers_train_like_one_process(on_ray, unbroken):
    assert_same_curve(loss_curve(on_ray), loss_curve(unbroken), tolerance=1e-4)
    assert on_ray.run.read_json(RESULT_FILE)["step"] == 14


def test_checkpoint_of_two_workers_goes_on_with_one(on_ray, unbroken, start):
    settings = start()
    shutil.rmtree(settings.run.path())
    shutil.copytree(on_ray.run.path(), settings.run.path())
    for stored in stored_checkpoints(settings.run, folders=CHECKPOINT_FOLDERS):
        manifest = json.loads((Path(stored.path) / manifest_name(0)).read_text())
        if manifest["step"] > 8:
            shutil.rmtree(stored.path)
    train_model(settings)
    assert (settings.run.list_names(LOCAL_DIR)) == ["checkpoint_00000012", "checkpoint_00000014"]
    assert_same_curve(loss_curve(settings), loss_curve(unbroken), tolerance=1e-4)


def test_more_workers_than_the_cluster_has_cpus_are_refused(local_ray, start):
    with pytest.raises(ClusterError, match=r"asks for 16 CPU \(16 workers\), the cluster has 2"):
        train_model(start(launcher="ray", num_workers=16))
