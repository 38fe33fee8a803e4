import shutil
from itertools import chain

import pytest
import torch

from raycrp.choices import Fusion
from raycrp.model.decode import score_labels
from raycrp.model.dropout import use_cheap_dropout
from raycrp.model.encode import tokenize_texts
from raycrp.model.fusion import fusion_of, mark_fusion, part_end, part_mask
from raycrp.model.t5 import load_backbone

PARTS = [
    [
        "Please suggest possible reactants for the given product.",
        " The reaction type is F1.",
        " CCl",
    ],
    ["Please suggest.", " The reaction type is F0.", " CC(=O)N"],
]


@pytest.fixture
def fused(lively_model, tmp_path):
    """The lively model as one that encodes parts apart, saved and loaded."""
    model, tokenizer = lively_model
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    mark_fusion(tmp_path / "model", Fusion.HIDDEN)
    return load_backbone(tmp_path / "model")


def encode(model, rows):
    """Hidden states of each row's real tokens, all rows in one padded batch."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        hidden = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    return [states[: len(row)] for states, row in zip(hidden, rows, strict=True)]


def test_a_token_looks_at_its_own_part_alone():
    ids = torch.tensor([[5, 1, 6, 7, 1], [5, 6, 1, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    may_look = part_mask(ids, mask=mask, end_id=1, dtype=torch.float32)[:, 0] == 0
    first, second = [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]
    assert may_look[0].int().tolist() == [first, first, second, second, second]
    assert may_look[1].int().tolist() == [[1, 1, 1, 0, 0]] * 5


@pytest.mark.parametrize("attention", ["as loaded", "eager", "in training"])
def test_one_pass_gives_the_vectors_of_the_parts_encoded_apart(lively_model, fused, attention):
    plain, tokenizer = lively_model
    model, _ = fused
    if attention == "eager":
        model.set_attn_implementation("eager")
    elif attention == "in training":
        use_cheap_dropout(model)
        model.eval()
    apart = [tokenize_texts(tokenizer, parts, max_tokens=None)[0] for parts in PARTS]
    found = encode(model, [list(chain(*parts)) for parts in apart])
    for states, parts in zip(found, apart, strict=True):
        expected = torch.cat([encode(plain, [part])[0] for part in parts])
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)


def test_a_prompt_of_one_text_reads_as_its_parts(fused):
    model, tokenizer = fused
    end = part_end(model, tokenizer)
    for parts in PARTS:
        apart = tokenize_texts(tokenizer, parts, max_tokens=None)[0]
        assert tokenizer(end.join(parts))["input_ids"] == list(chain(*apart))


def test_the_decoder_reads_all_parts(lively_model, fused):
    plain, tokenizer = lively_model
    model, _ = fused
    parts = tokenize_texts(tokenizer, PARTS[0], max_tokens=None)[0]
    states = torch.cat([encode(plain, [part])[0] for part in parts])
    labels = ["CCl", "CC(=O)N"]
    expected = []
    for label in labels:
        target = tokenizer(label, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.no_grad():
            loss = plain(encoder_outputs=(states[None],), labels=target).loss
        expected.append(-float(loss) * target.numel())
    prompts = [part_end(model, tokenizer).join(PARTS[0])]
    scores = score_labels(model, tokenizer, prompts, labels=labels, token_budget=1_000)
    assert scores[0].tolist() == pytest.approx(expected, abs=1e-3)
    read_whole = score_labels(plain, tokenizer, prompts, labels=labels, token_budget=1_000)
    assert abs(read_whole - scores).min() > 0.01


def test_fusion_stays_with_the_model(fused, tmp_path):
    model, tokenizer = fused
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again, _ = load_backbone(tmp_path / "again")
    assert fusion_of(again) is Fusion.HIDDEN


def test_a_model_reads_one_text_unless_it_is_marked(lively_model, preset_dir, tmp_path):
    model, tokenizer = lively_model
    assert part_end(model, tokenizer) == ""
    shutil.copytree(preset_dir, tmp_path / "model")
    before = (tmp_path / "model/config.json").read_bytes()
    mark_fusion(tmp_path / "model", Fusion.TEXT)
    assert (tmp_path / "model/config.json").read_bytes() == before
