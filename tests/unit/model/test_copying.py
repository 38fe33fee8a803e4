import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from raycrp.choices import Preset
from raycrp.config import Backbone
from raycrp.model.copying import start_copying
from raycrp.model.t5 import load_backbone, save_backbone

# No three neighbouring characters occur twice, so that the next one is always certain.
TEXT = "CN(C)C(=O)c1ccc(F)nc1Cl"


@pytest.fixture(scope="module", params=[Preset.TINY, Preset.SMALL])
def copying_model(request, preset_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("copying")
    save_backbone(
        Backbone(preset=request.param),
        tokenizer_dir=preset_dir,
        target=folder,
        seed=0,
        starts_copying=True,
    )
    return load_backbone(folder)


def _copied_share(model, tokenizer):
    """Share of tokens that follow three others and are guessed from the input alone."""
    batch = tokenizer([f"Please suggest. {TEXT}"], return_tensors="pt")
    labels = tokenizer([TEXT], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        guessed = model(**batch, labels=labels).logits.argmax(-1)
    return (guessed == labels)[0, 3:].float().mean().item()


def test_text_is_copied_before_training(copying_model):
    assert _copied_share(*copying_model) > 0.8


def test_a_plain_start_does_not_copy(preset_dir):
    assert _copied_share(*load_backbone(preset_dir)) < 0.3


def test_a_model_that_starts_copying_drops_nothing(copying_model):
    model, tokenizer = copying_model
    assert model.config.dropout_rate == 0
    batch = tokenizer([TEXT], return_tensors="pt")
    model.train()
    with torch.no_grad():
        first, second = (model(**batch, labels=batch["input_ids"]).loss for _ in range(2))
    model.eval()
    assert first == second


def test_a_started_model_still_learns_another_answer(copying_model):
    model, tokenizer = copying_model
    batch = tokenizer([TEXT], return_tensors="pt")
    labels = tokenizer(["FCCBr"], return_tensors="pt")["input_ids"]
    loss = model(**batch, labels=labels).loss
    loss.backward()
    gradients = [weight.grad.norm() for weight in model.parameters() if weight.grad is not None]
    assert len(gradients) == len(list(model.parameters()))
    assert all(torch.isfinite(gradient) for gradient in gradients)
    # All but what no position reaches yet, such as biases of long distances.
    assert sum(bool(gradient > 0) for gradient in gradients) == len(gradients)
    model.zero_grad()


@pytest.mark.parametrize(("width", "num_heads"), [(24, 4), (32, 2)])
def test_a_model_too_small_to_copy_is_named(width, num_heads):
    config = T5Config(
        vocab_size=16, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=num_heads
    )
    with pytest.raises(
        ValueError, match=f"3 heads and d_model >= 32, found {num_heads} and {width}"
    ):
        start_copying(T5ForConditionalGeneration(config), common_ids=[3, 4])
