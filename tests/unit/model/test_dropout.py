import json

import pytest
import torch
from minute_t5 import minute_t5
from transformers import T5ForConditionalGeneration

from raycrp.model.dropout import DropoutSource, use_cheap_dropout


def outputs(model):
    ids = torch.arange(3, 23).reshape(2, 10)
    mask = torch.tensor([[1] * 10, [1] * 6 + [0] * 4])
    return model(input_ids=ids, attention_mask=mask, labels=ids)


def test_share_and_scale_of_what_is_dropped():
    source = DropoutSource()
    values = torch.ones(200, 1_000)
    dropped = source.apply(values, rate=0.1)
    assert (dropped == 0).float().mean().item() == pytest.approx(26 / 256, abs=3e-3)
    assert dropped.mean().item() == pytest.approx(1, abs=5e-3)
    assert dropped.unique().tolist() == pytest.approx([0.0, 256 / 230])
    assert source.apply(values, rate=0.0) is values


def test_gradient_flows_through_what_is_kept_alone():
    source = DropoutSource()
    values = torch.ones(1_000, requires_grad=True)
    dropped = source.apply(values, rate=0.5)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


def test_the_same_seed_drops_the_same():
    source = DropoutSource()
    values = torch.ones(7, 13)
    source.seed(5)
    first, second = source.apply(values, rate=0.3), source.apply(values, rate=0.3)
    source.seed(5)
    assert torch.equal(source.apply(values, rate=0.3), first)
    assert not torch.equal(first, second)


def test_model_without_dropout_computes_what_transformers_does():
    wanted = outputs(minute_t5(dropout_rate=0.0).train())
    model = minute_t5(dropout_rate=0.0).train()
    use_cheap_dropout(model)
    found = outputs(model)
    torch.testing.assert_close(found.logits, wanted.logits)
    wanted = outputs(minute_t5().eval())
    model = minute_t5()
    use_cheap_dropout(model)
    torch.testing.assert_close(outputs(model.eval()).logits, wanted.logits)


def test_all_dropout_of_the_model_is_seeded_by_the_source():
    model = minute_t5().train()
    source = use_cheap_dropout(model)
    assert not any(isinstance(module, torch.nn.Dropout) for module in model.modules())

    def loss(seed, torch_seed):
        source.seed(seed)
        torch.manual_seed(torch_seed)
        return outputs(model).loss.item()

    assert loss(1, 1) == loss(1, 2) != loss(2, 1)


def test_a_saved_model_knows_nothing_of_it(tmp_path):
    model = minute_t5()
    use_cheap_dropout(model)
    model.save_pretrained(tmp_path)
    assert "raycrp" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    assert loaded.config.dropout_rate == 0.1
