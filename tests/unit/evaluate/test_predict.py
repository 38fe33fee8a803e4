"""The predictor with stand-ins for the models; the real ones are in the integration tests."""

import json
import math

import numpy as np
import pytest

import raycrp
from raycrp.choices import Task
from raycrp.errors import ModelError
from raycrp.evaluate import model_folder, prompting
from raycrp.evaluate import predict as module
from raycrp.evaluate.predict import Predictor, load_predictor
from raycrp.model.decode import Hypothesis
from raycrp.prompt.templates import load_templates, templates_text

CARD = {
    "format": 1,
    "tasks": ["forward", "reagent"],
    "use_reaction_type": True,
    "instruction": "adaptive",
    "num_types": {"forward": 3, "reagent": 2},
}


class Labeler:
    num_types = 3

    def predict(self, inputs):
        return np.array([[0.2, 0.5, 0.3]] * len(inputs), dtype=np.float32)


class Model:
    def get_encoder(self):
        return self


@pytest.fixture
def asked(monkeypatch):
    """What the beam search was asked for."""
    calls = []

    def beam_search(model, tokenizer, prompts, **settings):
        calls.append((list(prompts), settings))
        return [
            [Hypothesis(f"CC{'C' * i}O", -float(i), (i,)) for i in range(num_beams)]
            for num_beams in settings["num_beams"]
        ]

    def nothing_to_score(model, tokenizer, prompts, *, answers, token_budget):
        assert not any(answers)
        return [[] for _ in answers]

    def encode_texts(encoder, *, texts, **_):
        """Places texts on a line by their length."""
        return np.array([[len(text)] for text in texts], dtype=np.float32), 0

    monkeypatch.setattr(module, "load_backbone", lambda folder, device: (Model(), None))
    monkeypatch.setattr(module, "use_precision", lambda model, precision: None)
    monkeypatch.setattr(prompting, "load_labeler", lambda folder, device: Labeler())
    monkeypatch.setattr(module, "beam_search", beam_search)
    monkeypatch.setattr(module, "score_answers", nothing_to_score)
    monkeypatch.setattr(module, "PromptStates", lambda model, tokenizer, prompts, **_: prompts)
    monkeypatch.setattr(prompting, "encode_texts", encode_texts)
    return calls


@pytest.fixture
def make_folder(tmp_path):
    def make(**changes):
        (tmp_path / "raycrp.json").write_text(json.dumps(CARD | changes))
        (tmp_path / "templates.yaml").write_text(templates_text())
        return tmp_path

    return make


def test_prompt_holds_instruction_type_and_canonical_input(asked, make_folder):
    predictor = Predictor(make_folder(instruction="fixed"))
    (prediction,) = predictor.predict(["OCC"], task="forward", top_k=2)
    first = load_templates()[Task.FORWARD][0]
    assert asked[0][0] == [f"{first.text} The reaction type is F1. CCO"]
    assert prediction.template_id == first.id
    assert prediction.reaction_type == 1
    assert prediction.reaction_type_probabilities == pytest.approx((0.2, 0.5, 0.3))
    assert [answer.smiles for answer in prediction.answers] == ["CCO", "CCCO"]
    assert len(prediction.raw_answers) == 5


def test_given_types_are_used_and_not_asked_for(asked, make_folder):
    predictor = Predictor(make_folder(instruction="fixed"))
    predictions = predictor.predict(["CCO", "CCN"], task="forward", reaction_types=[2, 0])
    assert ["F2" in asked[0][0][0], "F0" in asked[0][0][1]] == [True, True]
    assert [each.reaction_type_probabilities for each in predictions] == [None, None]


def test_given_types_stay_with_their_inputs_when_one_is_rejected(asked, make_folder):
    predictor = Predictor(make_folder(instruction="fixed"))
    predictions = predictor.predict(["CCO", "xx", "CCN"], task="forward", reaction_types=[2, 1, 0])
    assert [each.reaction_type for each in predictions] == [2, None, 0]
    assert predictions[1].problem is not None
    assert predictions[1].answers == ()


def test_a_model_without_types_has_none_in_its_prompts(asked, make_folder):
    predictor = Predictor(make_folder(use_reaction_type=False))
    (prediction,) = predictor.predict(["CCO"], task="forward")
    assert "reaction type" not in asked[0][0][0]
    assert prediction.reaction_type is None


def test_the_nearest_instruction_is_chosen(asked, make_folder):
    templates = load_templates()[Task.REAGENT]
    lengths = sorted({len(template.text) for template in templates})
    text = "C" * (lengths[0] - 3) + ">>C"
    (prediction,) = Predictor(make_folder()).predict([text], task="reagent")
    chosen = next(each for each in templates if each.id == prediction.template_id)
    assert len(chosen.text) == lengths[0]


def test_random_instructions_follow_the_row_id(asked, make_folder):
    predictor = Predictor(make_folder(instruction="random", seed=4))
    inputs = ["CCO"] * 6
    ids = [100, 101, 102, 103, 104, 105]
    chosen = [p.template_id for p in predictor.predict(inputs, task="forward", row_ids=ids)]
    again = predictor.predict(inputs[:1], task="forward", row_ids=[103])
    assert again[0].template_id == chosen[3]
    assert len(set(chosen)) > 1


def test_inputs_that_mean_the_same_are_answered_once(asked, make_folder):
    predictions = Predictor(make_folder()).predict(["OCC", "CCO", " CCO"], task="forward")
    assert len(asked[0][0]) == 1
    assert [each.input for each in predictions] == ["OCC", "CCO", " CCO"]
    assert predictions[0].answers == predictions[1].answers == predictions[2].answers


def test_random_instructions_keep_rows_apart(asked, make_folder):
    predictor = Predictor(make_folder(instruction="random"))
    predictor.predict(["CCO", "CCO"], task="forward")
    assert len(asked[0][0]) == 2


def test_types_share_the_beams_by_their_probability(asked, monkeypatch, make_folder):
    """Of 0.5, 0.3, 0.2 the first two are asked; what one finds is scored under the other."""
    scored = []

    def score_answers(model, tokenizer, prompts, *, answers, token_budget):
        scored.extend(zip(prompts, answers, strict=True))
        return [[math.log(0.25) for _ in rows] for rows in answers]

    monkeypatch.setattr(module, "score_answers", score_answers)
    predictor = Predictor(make_folder(instruction="fixed"), num_beams=5, num_reaction_types=2)
    (prediction,) = predictor.predict(["CCO"], task="forward", top_k=3)
    assert asked[0][1]["num_beams"] == [3, 2]
    assert ["F1" in asked[0][0][0], "F2" in asked[0][0][1]] == [True, True]
    assert [rows for _, rows in scored] == [[], [(2,)]]
    # Both found CCO with probability 1, CCCO with 1/e; the second type scores CCCCO alone.
    expected = [1, math.exp(-1), 0.625 * math.exp(-2) + 0.375 * 0.25]
    probabilities = [math.exp(each.log_probability) for each in prediction.answers]
    assert probabilities == pytest.approx(expected)
    assert prediction.reaction_types_used == (1, 2)
    assert prediction.raw_answers == ("CCO", "CCCO", "CCCCO")


def test_a_type_without_beams_scores_what_the_first_finds(asked, monkeypatch, make_folder):
    """Five answers of five beams are the first type's; the second says how probable they are."""

    def score_answers(model, tokenizer, prompts, *, answers, token_budget):
        return [[math.log(0.5) for _ in rows] for rows in answers]

    monkeypatch.setattr(module, "score_answers", score_answers)
    predictor = Predictor(make_folder(instruction="fixed"), num_beams=5, num_reaction_types=2)
    (prediction,) = predictor.predict(["CCO"], task="forward", top_k=5)
    assert asked[0][1]["num_beams"] == [5, 0]
    expected = [0.625 * math.exp(-rank) + 0.375 * 0.5 for rank in range(5)]
    probabilities = [math.exp(each.log_probability) for each in prediction.answers]
    assert probabilities == pytest.approx(expected)
    assert prediction.reaction_types_used == (1, 2)


def test_confidence_comes_from_the_file_beside_the_model(asked, make_folder):
    folder = make_folder()
    curve = {"slope": 1.0, "offset": 0.0, "num_rows": 9}
    (folder / "calibration.json").write_text(json.dumps({"forward": curve}))
    (prediction,) = Predictor(folder).predict(["CCO"], task="forward", top_k=2)
    assert [each.confidence for each in prediction.answers] == pytest.approx(
        [1 / 2, 1 / (1 + math.e)]
    )
    (folder / "calibration.json").write_text('{"forward": 1}')
    with pytest.raises(ModelError, match="damaged"):
        Predictor(folder).predict(["CCO"], task="forward")


def test_an_answer_that_is_no_molecule_cannot_be_right(asked, monkeypatch, make_folder):
    folder = make_folder()
    curve = {"slope": 1.0, "offset": 0.0, "num_rows": 9}
    (folder / "calibration.json").write_text(json.dumps({"forward": curve}))
    found = [Hypothesis("C1", 0.0, (1,)), Hypothesis("C", -1.0, (2,))]
    monkeypatch.setattr(module, "beam_search", lambda *_, **__: [found])
    (prediction,) = Predictor(folder).predict(["CCO"], task="forward", top_k=2)
    expected = pytest.approx([0, 1 / (1 + math.e)])
    assert [each.confidence for each in prediction.answers] == expected


def test_precursors_that_hold_the_product_pass_no_round_trip(asked, make_folder):
    predictor = Predictor(make_folder())
    answers = ["CC=O", "CO.CCO", "OCC", "C1"]
    assert predictor.round_trips(["OCC", "CO"], answers=[answers, answers]) == [
        (True, False, False, False),
        (False,) * 4,
    ]


def test_more_answers_than_beams_widen_the_search(asked, make_folder):
    predictor = Predictor(make_folder(), num_beams=3)
    predictor.predict(["CCO"], task="forward", top_k=7)
    assert asked[0][1]["num_beams"] == [7]
    assert asked[0][1]["num_return"] == 7


def test_nothing_but_bad_inputs(asked, make_folder):
    predictions = Predictor(make_folder()).predict(["xx", ""], task="forward")
    assert all(each.problem for each in predictions)
    assert asked == []


@pytest.mark.parametrize(
    ("task", "said"), [("retrosynthesis", "trained for forward, reagent"), ("retro", "known:")]
)
def test_a_task_that_the_model_does_not_know(asked, make_folder, task, said):
    with pytest.raises(ModelError, match=said):
        Predictor(make_folder()).predict(["CCO"], task=task)


def test_a_type_that_does_not_exist(asked, make_folder):
    with pytest.raises(ModelError, match="0 to 2"):
        Predictor(make_folder()).predict(["CCO"], task="forward", reaction_types=[3])


def test_one_text_is_no_list_of_inputs(asked, make_folder):
    with pytest.raises(ValueError, match=r"such as \['CCO'\]"):
        Predictor(make_folder()).predict("CCO", task="forward")


def test_loading_takes_what_the_command_line_takes(asked, monkeypatch, make_folder):
    def score_answers(model, tokenizer, prompts, *, answers, token_budget):
        return [[-1.0 for _ in rows] for rows in answers]

    monkeypatch.setattr(module, "score_answers", score_answers)
    folder = str(make_folder(instruction="fixed"))
    predictor = raycrp.load(folder, device="cpu", num_beams=7, num_reaction_types=2)
    (prediction,) = predictor.predict(["CCO"], task="forward", top_k=1)
    assert sum(asked[0][1]["num_beams"]) == 7
    assert prediction.reaction_types_used == (1, 2)


def test_a_run_folder_leads_to_its_model(asked, make_folder, tmp_path):
    make_folder()
    run = tmp_path.parent / f"{tmp_path.name}-run"
    run.mkdir()
    tmp_path.rename(run / "model")
    assert load_predictor(run, device="cpu").tasks == (Task.FORWARD, Task.REAGENT)


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"no raycrp\.json"):
        load_predictor(tmp_path)
    with pytest.raises(ModelError, match=r"no raycrp\.json"):
        load_predictor(tmp_path / "missing")


def test_a_damaged_or_strange_card(make_folder):
    folder = make_folder(format=99)
    with pytest.raises(ModelError, match="format 99, expected 1"):
        Predictor(folder)
    (folder / "raycrp.json").write_text("[1]")
    with pytest.raises(ModelError, match="format None, expected 1"):
        Predictor(folder)
    (folder / "raycrp.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        Predictor(folder)


def test_format_is_the_one_that_is_exported():
    from raycrp.train import export

    ours = (model_folder.MODEL_DIR, model_folder.MODEL_FILE, model_folder.MODEL_FORMAT)
    assert ours == (export.MODEL_DIR, export.MODEL_FILE, export.MODEL_FORMAT)
