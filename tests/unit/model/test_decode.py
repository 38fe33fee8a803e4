import random

import pytest
import torch

from raycrp.model.beams import BeamSettings, search_beams
from raycrp.model.decode import beam_search, label_token_ids, score_answers, score_labels
from raycrp.model.incremental import IncrementalDecoder

rng = random.Random(0)
PROMPTS = ["".join(rng.choices("CNO=()c1", k=rng.randint(1, 30))) for _ in range(8)]


def encode(model, ids, mask):
    """What the encoder says of padded rows."""
    return model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state


def generate(model, tokenizer, prompt, **settings):
    """The library's own beam search on one prompt alone."""
    banned = [0, 2, *range(len(tokenizer), model.config.vocab_size)]
    output = model.generate(
        **tokenizer(prompt, return_tensors="pt"),
        **settings,
        length_penalty=0.0,
        early_stopping=False,
        suppress_tokens=banned,
        return_dict_in_generate=True,
        output_scores=True,
    )
    texts = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
    return texts, output.sequences_scores.tolist()


@pytest.mark.parametrize(("num_beams", "num_return", "length"), [(2, 2, 6), (4, 3, 12)])
def test_beams_are_those_of_the_library(lively_model, num_beams, num_return, length):
    model, tokenizer = lively_model
    found = beam_search(
        model,
        tokenizer,
        PROMPTS,
        num_beams=num_beams,
        num_return=num_return,
        max_new_tokens=length,
        token_budget=80,
    )
    for prompt, hypotheses in zip(PROMPTS, found, strict=True):
        texts, scores = generate(
            model,
            tokenizer,
            prompt,
            num_beams=num_beams,
            num_return_sequences=num_return,
            max_new_tokens=length,
        )
        assert [hypothesis.text for hypothesis in hypotheses] == texts
        probabilities = [hypothesis.log_probability for hypothesis in hypotheses]
        assert probabilities == pytest.approx(scores, abs=1e-3)
        assert probabilities == sorted(probabilities, reverse=True)
    assert len({hypotheses[0].text for hypotheses in found}) > 1


def test_a_log_probability_is_that_of_the_tokens(lively_model):
    model, tokenizer = lively_model
    batch = tokenizer(["CC(=O)N", "C"], return_tensors="pt", padding=True)
    settings = BeamSettings(
        num_beams=3, num_return=2, max_new_tokens=5, start_id=0, end_id=1, banned_ids=(0, 2)
    )
    with torch.inference_mode():
        states = encode(model, batch["input_ids"], batch["attention_mask"])
        found = search_beams(model, states=states, mask=batch["attention_mask"], settings=settings)
    for text, answers in zip(["CC(=O)N", "C"], found, strict=True):
        for answer in answers:
            labels = torch.tensor([answer.token_ids])
            with torch.no_grad():
                logits = model(**tokenizer(text, return_tensors="pt"), labels=labels).logits
            steps = logits.log_softmax(-1).gather(2, labels[..., None])
            assert answer.log_probability == pytest.approx(steps.sum().item(), abs=1e-3)


def test_a_step_equals_the_library_for_any_ancestry(lively_model):
    # Three beams over 40 steps, more than the cache has room for before it leaves dead beams
    # behind; beams change places, and the rows come to share more or less of their past.
    model, tokenizer = lively_model
    batch = tokenizer(["CCO", "CC(=O)Nc1ccccc1"], return_tensors="pt", padding=True)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    generator = torch.Generator().manual_seed(1)
    num_steps, num_beams = 40, 3
    fed = torch.randint(3, 60, (num_steps, 2, num_beams), generator=generator)
    past = torch.zeros((2, num_beams, 1), dtype=torch.int64)
    parents = None
    with torch.inference_mode():
        states = encode(model, ids, mask)
        decoder = IncrementalDecoder(model, states=states, mask=mask, num_beams=num_beams)
        for step, tokens in enumerate(fed):
            found = decoder.step(past[:, :, -1], parents=parents)
            for beam in range(num_beams) if step % 5 == 4 else ():
                logits = model(
                    input_ids=ids, attention_mask=mask, decoder_input_ids=past[:, beam]
                ).logits
                expected = logits[:, -1].log_softmax(-1)
                torch.testing.assert_close(found[:, beam], expected, atol=1e-4, rtol=1e-4)
            parents = torch.randint(num_beams, (2, num_beams), generator=generator)
            past = torch.stack([row[own] for row, own in zip(past, parents, strict=True)])
            past = torch.cat([past, tokens[..., None]], dim=2)


def test_order_and_batches_change_nothing(lively_model):
    model, tokenizer = lively_model
    settings = {"num_beams": 3, "num_return": 3, "max_new_tokens": 8}
    together = beam_search(model, tokenizer, PROMPTS, token_budget=500, **settings)
    apart = beam_search(model, tokenizer, PROMPTS[::-1], token_budget=1, **settings)[::-1]
    for one, other in zip(together, apart, strict=True):
        assert [hypothesis.text for hypothesis in one] == [h.text for h in other]


def test_an_answer_without_end_is_cut_at_the_limit(lively_model):
    model, tokenizer = lively_model
    ids = tokenizer("CCO", return_tensors="pt")["input_ids"]
    settings = BeamSettings(
        num_beams=2, num_return=2, max_new_tokens=4, start_id=0, end_id=999, banned_ids=(0, 2)
    )
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        states = encode(model, ids, mask)
        [answers] = search_beams(model, states=states, mask=mask, settings=settings)
    assert [len(answer.token_ids) for answer in answers] == [4, 4]


def test_more_answers_than_beams_are_refused(lively_model):
    with pytest.raises(ValueError, match=r"num_return \(3\) exceeds num_beams \(2\)"):
        beam_search(
            *lively_model, ["C"], num_beams=2, num_return=3, max_new_tokens=4, token_budget=8
        )


def test_no_prompts_give_no_answers(lively_model):
    model, tokenizer = lively_model
    settings = {"num_beams": 2, "num_return": 2, "max_new_tokens": 4, "token_budget": 8}
    assert beam_search(model, tokenizer, [], **settings) == []
    assert score_labels(model, tokenizer, [], labels=["1"], token_budget=8).shape == (0, 1)


@pytest.mark.parametrize(
    "labels",
    [["0", "1", "2"], [str(number) for number in range(12)], ["F0", "F1"], ["CCO", "CCN", "C"]],
)
def test_label_scores_are_sums_over_their_tokens(lively_model, labels):
    model, tokenizer = lively_model
    model.train()
    scores = score_labels(model, tokenizer, PROMPTS, labels=labels, token_budget=80)
    assert model.training
    model.eval()
    # The end of text is part of the answer exactly where one label begins another.
    with_end = any(a != b and a.startswith(b) for a in labels for b in labels)
    for prompt, row in zip(PROMPTS, scores, strict=True):
        batch = tokenizer(prompt, return_tensors="pt")
        for label, score in zip(labels, row, strict=True):
            answer = tokenizer(label, return_tensors="pt", add_special_tokens=with_end)["input_ids"]
            with torch.no_grad():
                steps = model(**batch, labels=answer).logits.log_softmax(-1)
            expected = steps.gather(2, answer[..., None]).sum().item()
            assert score == pytest.approx(expected, abs=1e-3)


def test_labels_that_read_the_same_are_refused(lively_model):
    _, tokenizer = lively_model
    with pytest.raises(ValueError, match="do not differ"):
        label_token_ids(tokenizer, ["é", "→"])


def test_rows_with_beams_of_their_own_answer_as_in_searches_of_their_own(lively_model):
    model, tokenizer = lively_model
    settings = {"max_new_tokens": 10, "token_budget": 10_000}
    beams = [1, 4, 2, 3, 1, 4, 2, 2]
    together = beam_search(model, tokenizer, PROMPTS, num_beams=beams, num_return=4, **settings)
    for prompt, width, found in zip(PROMPTS, beams, together, strict=True):
        [alone] = beam_search(
            model, tokenizer, [prompt], num_beams=width, num_return=width, **settings
        )
        assert [each.token_ids for each in found] == [each.token_ids for each in alone]
        assert [each.log_probability for each in found] == pytest.approx(
            [each.log_probability for each in alone], abs=1e-3
        )


def test_given_answers_score_what_the_search_says_of_its_own(lively_model):
    model, tokenizer = lively_model
    settings = {"num_beams": 3, "num_return": 3, "max_new_tokens": 9, "token_budget": 200}
    found = beam_search(model, tokenizer, PROMPTS, **settings)
    answers = [[each.token_ids for each in row] for row in found]
    answers[2] = []
    scores = score_answers(model, tokenizer, PROMPTS, answers=answers, token_budget=100)
    assert scores[2] == []
    for place, row in enumerate(found):
        if place != 2:
            assert scores[place] == pytest.approx([h.log_probability for h in row], abs=1e-3)


@pytest.mark.parametrize("token_budget", [10, 10_000])
def test_answers_that_begin_alike_score_as_the_library_scores_each(lively_model, token_budget):
    model, tokenizer = lively_model
    answers = [[(5, 6, 7, 1), (5, 6, 1), (5, 6), (5, 6, 7, 8, 9, 5, 1)], [(1,)], [(7, 5), (8, 5)]]
    prompts = PROMPTS[: len(answers)]
    scores = score_answers(model, tokenizer, prompts, answers=answers, token_budget=token_budget)
    for prompt, rows, found in zip(prompts, answers, scores, strict=True):
        for ids, score in zip(rows, found, strict=True):
            labels = torch.tensor([ids])
            with torch.no_grad():
                logits = model(**tokenizer(prompt, return_tensors="pt"), labels=labels).logits
            expected = logits.log_softmax(-1).gather(2, labels[..., None]).sum().item()
            assert score == pytest.approx(expected, abs=1e-3)
