"""Prompts are encoded once, however many passes read their states."""

from contextlib import contextmanager

import pytest
import torch

from raycrp.choices import Fusion
from raycrp.model.decode import beam_search, score_answers
from raycrp.model.fusion import mark_fusion, part_end
from raycrp.model.states import PromptStates, state_batches
from raycrp.model.t5 import load_backbone

INPUTS = ["CC(=O)N", "CCl", "F/C=C\\F.CC(=O)N"]
INSTRUCTION = "Please suggest possible reactants for the given product."
SEARCH = {"num_return": 3, "max_new_tokens": 9, "token_budget": 200}


@pytest.fixture(params=list(Fusion))
def loaded(request, lively_model, tmp_path):
    """The lively model under each fusion."""
    model, tokenizer = lively_model
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    mark_fusion(tmp_path / "model", request.param)
    return load_backbone(tmp_path / "model")


def ask(model, tokenizer, *, types):
    end = part_end(model, tokenizer)
    return [
        f"{INSTRUCTION}{end} The reaction type is F{number}.{end} {text}"
        for text in INPUTS
        for number in types
    ]


@contextmanager
def counting(model):
    """Real tokens that pass through the encoder."""
    seen = []
    encoder = model.get_encoder()
    forward = encoder.forward

    def counted(*, input_ids, attention_mask):
        seen.append(int(attention_mask.sum()))
        return forward(input_ids=input_ids, attention_mask=attention_mask)

    encoder.forward = counted
    yield seen
    encoder.forward = forward


def test_search_and_scores_by_kept_states_are_those_of_the_texts(loaded):
    model, tokenizer = loaded
    prompts = ask(model, tokenizer, types=[0, 1])
    states = PromptStates(model, tokenizer, prompts, token_budget=60)
    beams = [3, 1] * len(INPUTS)
    found = beam_search(model, tokenizer, states, num_beams=beams, **SEARCH)
    expected = beam_search(model, tokenizer, prompts, num_beams=beams, **SEARCH)
    assert [[h.text for h in row] for row in found] == [[h.text for h in r] for r in expected]
    for one, other in zip(found, expected, strict=True):
        assert [h.log_probability for h in one] == pytest.approx(
            [h.log_probability for h in other], abs=1e-5, rel=1e-5
        )
    answers = [[h.token_ids for h in row] for row in reversed(found)]
    scores = score_answers(model, tokenizer, states, answers=answers, token_budget=60)
    again = score_answers(model, tokenizer, prompts, answers=answers, token_budget=600)
    for one, other in zip(scores, again, strict=True):
        assert one == pytest.approx(other, abs=1e-5, rel=1e-5)


def test_each_batch_holds_what_the_encoder_says_of_its_prompts(loaded):
    model, tokenizer = loaded
    prompts = [*ask(model, tokenizer, types=[1, 0]), INSTRUCTION, "C"]
    kept = PromptStates(model, tokenizer, prompts, token_budget=50)
    places = [7, 0, 3, 6]
    seen = set()
    for found, states, mask in kept.batches(places, token_budget=150):
        seen.update(found)
        for place, row, is_real in zip(found, states, mask.bool(), strict=True):
            batch = tokenizer(prompts[place], return_tensors="pt")
            with torch.no_grad():
                alone = model.get_encoder()(**batch).last_hidden_state[0]
            torch.testing.assert_close(row[is_real], alone, atol=1e-5, rtol=1e-4)
    assert seen == set(places)


@pytest.mark.parametrize("num_types", [1, 2])
def test_what_the_encoder_reads_of_one_input_under_several_types(loaded, num_types):
    model, tokenizer = loaded
    prompts = ask(model, tokenizer, types=range(num_types))
    end = part_end(model, tokenizer)
    parts = {part for prompt in prompts for part in prompt.split(end)} if end else set(prompts)
    with counting(model) as seen:
        states = PromptStates(model, tokenizer, [*prompts, *prompts], token_budget=100)
        found = beam_search(model, tokenizer, states, num_beams=3, **SEARCH)
        answers = [[h.token_ids for h in row] for row in found]
        score_answers(model, tokenizer, states, answers=answers, token_budget=100)
    assert sum(seen) == sum(len(tokenizer(part).input_ids) for part in parts)


def test_texts_in_passing_are_encoded_batch_by_batch(loaded):
    model, tokenizer = loaded
    prompts = ask(model, tokenizer, types=[0])
    with counting(model) as seen:
        batches = state_batches(model, tokenizer, prompts, places=[0, 2], token_budget=1)
        next(batches)
        assert len(seen) == 1
        next(batches)
    assert sum(seen) == sum(len(tokenizer(prompts[place]).input_ids) for place in (0, 2))
