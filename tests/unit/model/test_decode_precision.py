import copy

import pytest
import torch

from raycrp.choices import Precision
from raycrp.model.decode import beam_search, score_answers
from raycrp.model.decode_precision import use_precision

PROMPTS = ["CC(=O)N", "C1CC1", "CCO"]
SEARCH = {"num_beams": 3, "num_return": 3, "max_new_tokens": 6, "token_budget": 200}


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16])
def test_half_precision_says_nearly_the_same(lively_model, precision):
    model, tokenizer = lively_model
    half = copy.deepcopy(model)
    use_precision(half, precision)
    found = beam_search(half, tokenizer, PROMPTS, **SEARCH)
    answers = [[each.token_ids for each in row] for row in found]
    exact = score_answers(model, tokenizer, PROMPTS, answers=answers, token_budget=200)
    for row, scores in zip(found, exact, strict=True):
        assert [each.log_probability for each in row] == pytest.approx(scores, rel=0.05, abs=0.3)
    assert half.get_encoder().block[0].layer[0].SelfAttention.q.weight.dtype.itemsize == 2


def test_the_layers_that_overflow_stay_in_fp32(lively_model):
    half = copy.deepcopy(lively_model[0])
    use_precision(half, Precision.FP16)
    kinds = {name: p.dtype for name, p in half.named_parameters() if ".wo." in name}
    assert set(kinds.values()) == {torch.float32}


def test_a_cpu_keeps_fp32(lively_model):
    model = copy.deepcopy(lively_model[0])
    use_precision(model, Precision.AUTO)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
