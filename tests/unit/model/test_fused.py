"""Fused kernels compute what the plain model computes."""

import copy

import pytest
import torch
from minute_t5 import minute_t5

from raycrp.model.fused import compile_blocks, use_fused_kernels
from raycrp.model.fusion import apply_fusion
from raycrp.train.precision import enable_fp16

INPUTS = torch.tensor([[5, 6, 1, 7, 8, 9, 1], [9, 1, 8, 1, 0, 0, 0]])
MASK = (INPUTS != 0).long()
TARGETS = torch.tensor([[0, 4, 5, 6, 7], [0, 7, 7, 1, 0]])


def new_model(*, dropout_rate=0.0, kind="relu"):
    model = minute_t5(
        vocab_size=24, dropout_rate=dropout_rate, feed_forward_proj=kind, initializer_factor=2.0
    )
    model.set_attn_implementation("eager")
    return model.train()


def results(model):
    output = model(
        input_ids=INPUTS, attention_mask=MASK, decoder_input_ids=TARGETS, use_cache=False
    )
    model.zero_grad()
    output.logits.square().sum().backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    return {"logits": output.logits.detach(), **gradients}


def assert_close(found, expected, *, tolerance=5e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = (found[name] - value).abs().max() / value.abs().max()
        assert difference <= tolerance, f"{name} differs by {difference:.1e}"


@pytest.mark.parametrize("fusion", ["text", "hidden"])
def test_fused_kernels_give_the_same_logits_and_gradients(fusion):
    plain = new_model(kind="gated-gelu")
    plain.config.raycrp_fusion = fusion
    fused = copy.deepcopy(plain)
    use_fused_kernels(fused)
    for model in (plain, fused):
        apply_fusion(model, end_id=1)
    expected = results(plain)
    assert_close(results(fused), expected)
    other = {"text": "hidden", "hidden": "text"}[fusion]
    plain = new_model(kind="gated-gelu")
    plain.config.raycrp_fusion = other
    apply_fusion(plain, end_id=1)
    assert not torch.allclose(results(plain)["logits"], expected["logits"], rtol=1e-3)


def test_a_batch_without_padding_needs_no_look_at_its_mask(monkeypatch):
    model = new_model()
    use_fused_kernels(model)

    def refuse(*_args, **_kwargs):
        raise AssertionError("the CPU would wait for the GPU")

    monkeypatch.setattr(torch.Tensor, "__bool__", refuse)
    monkeypatch.setattr(torch.Tensor, "item", refuse)
    ids = INPUTS[:1]
    model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        decoder_input_ids=TARGETS[:1],
        use_cache=False,
    )


def test_half_precision_stays_near_full():
    plain = new_model()
    half = copy.deepcopy(plain)
    use_fused_kernels(half)
    enable_fp16(half, device_type="cpu")
    found, expected = results(half), results(plain)
    assert found["logits"].dtype == torch.float16
    assert torch.allclose(found["logits"].float(), expected["logits"], rtol=0.02, atol=0.2)
    assert not torch.equal(found["logits"].float(), expected["logits"])


def test_dropout_is_kept():
    model = new_model(dropout_rate=0.5)
    use_fused_kernels(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    first, second = (results(model)["logits"] for _ in range(2))
    assert not torch.equal(first, second)  # By what the attention itself drops.
    model.eval()
    assert torch.equal(results(model)["logits"], results(model)["logits"])


def test_a_cached_decoder_goes_on_as_before():
    plain = new_model().eval()
    fused = copy.deepcopy(plain)
    use_fused_kernels(fused)
    settings = {"attention_mask": MASK, "max_new_tokens": 6, "num_beams": 2}
    expected = plain.generate(INPUTS, **settings)
    assert fused.generate(INPUTS, **settings).equal(expected)
    assert len(set(expected.flatten().tolist())) > 2


def test_compiling_leaves_the_names_of_weights():
    model = new_model()
    names = list(model.state_dict())
    compile_blocks(model)
    assert list(model.state_dict()) == names
    blocks = [*model.encoder.block, *model.decoder.block]
    assert all(block._compiled_call_impl is not None for block in blocks)


@pytest.mark.slow
def test_compiled_blocks_compute_the_same():
    plain = new_model()
    compiled = copy.deepcopy(plain)
    use_fused_kernels(compiled)
    compile_blocks(compiled, backend="aot_eager")
    assert_close(results(compiled), results(plain))
