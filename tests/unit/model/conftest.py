"""Tiny models, made once: a preset of ours and a published one in T5's form."""

import string

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

from raycrp.choices import Preset
from raycrp.config import Backbone
from raycrp.model.t5 import build_tokenizer, load_backbone, save_backbone

# Threads that wait for each other on busy cores make small models a hundred times slower.
torch.set_num_threads(1)

SMILES = [
    "CC(=O)[N+]([O-])C[C@H](N)C>>CCl",
    "[nH]1cccc1%10CC%10",
    "F/C=C\\F",
    "[13CH3:5][Se]Br.[Na+].O=S(=O)(O)[O-]",
]
WORDS = ["Please suggest possible reactants for the given product.", "The reaction type is."]


@pytest.fixture(scope="session")
def preset_dir(tmp_path_factory):
    """A `tiny` model before training, with the names F0 and F1 among its tokens."""
    folder = tmp_path_factory.mktemp("preset")
    build_tokenizer(SMILES * 5, words=WORDS).save_pretrained(folder / "tokenizer")
    save_backbone(
        Backbone(preset=Preset.TINY),
        tokenizer_dir=folder / "tokenizer",
        target=folder / "model",
        seed=0,
        new_tokens=["F0", "F1"],
    )
    return folder / "model"


@pytest.fixture(scope="session")
def lively_model(preset_dir):
    """The tiny model with weights large enough that its answers differ from prompt to prompt."""
    model, tokenizer = load_backbone(preset_dir)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "layer_norm" in name:
                weight.add_(0.3 * noise)
            elif "relative" in name:
                weight.copy_(noise)
            elif "shared" in name:
                weight.copy_(0.35 * noise)
            else:
                weight.mul_(1.5)
    return model, tokenizer


@pytest.fixture(scope="session")
def published_dir(tmp_path_factory):
    """A folder like a published T5: its tokenizer lacks the backslash, and ``#`` inside words."""
    folder = tmp_path_factory.mktemp("published")
    characters = string.ascii_letters + string.digits + "()[].=:/@+-%,?!"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(character, -5.0) for character in characters]
    pieces += [("▁The", -3.0), ("▁type", -3.0), ("CC", -4.0), ("▁#", -4.0)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=3)
    tokenizer.save_pretrained(folder)
    config = T5Config(
        vocab_size=92, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0
    )
    config.decoder_start_token_id = 0
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder
