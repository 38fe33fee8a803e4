import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from raycrp.choices import Device, Preset
from raycrp.config import Backbone
from raycrp.errors import ModelError
from raycrp.model.t5 import (
    load_backbone,
    load_encoder,
    num_parameters,
    resolve_device,
    save_backbone,
    seeded,
)
from raycrp.model.tokenizers import prepare_tokenizer


def test_a_preset_loads_with_the_auto_classes(preset_dir):
    model = AutoModelForSeq2SeqLM.from_pretrained(preset_dir, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(preset_dir, trust_remote_code=False)
    ids = tokenizer("The reaction type is F1. CC", return_tensors="pt")["input_ids"]
    assert model.generate(ids, max_new_tokens=3).shape[0] == 1
    assert {"F0", "F1"} <= set(tokenizer.get_vocab())
    assert sorted(path.name for path in preset_dir.iterdir() if path.suffix == ".bin") == []


def test_saving_shows_no_progress_bar(preset_dir, tmp_path, capfd):
    save_backbone(Backbone(preset="tiny"), tokenizer_dir=preset_dir, target=tmp_path, seed=0)
    assert "Writing model shards" not in capfd.readouterr().err


def test_embeddings_cover_the_vocabulary_in_multiples_of_eight(preset_dir):
    model, tokenizer = load_backbone(preset_dir)
    num_rows = model.get_input_embeddings().num_embeddings
    assert num_rows % 8 == 0
    assert len(tokenizer) <= num_rows < len(tokenizer) + 8
    assert model.config.vocab_size == num_rows
    assert model.config.decoder_start_token_id == tokenizer.pad_token_id == 0
    assert not model.training


@pytest.mark.parametrize(("preset", "millions"), [(Preset.TINY, (1, 2)), (Preset.SMALL, (7, 12))])
def test_presets_have_the_promised_size(preset_dir, tmp_path, preset, millions):
    save_backbone(Backbone(preset=preset), tokenizer_dir=preset_dir, target=tmp_path, seed=0)
    model, _ = load_backbone(tmp_path)
    assert millions[0] * 1e6 <= num_parameters(model) <= millions[1] * 1e6


def test_weights_depend_on_the_seed_alone(preset_dir, tmp_path):
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        torch.rand(number)
        folder = tmp_path / str(number)
        save_backbone(
            Backbone(preset=Preset.TINY), tokenizer_dir=preset_dir, target=folder, seed=seed
        )
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_a_new_model_starts_near_a_uniform_guess(preset_dir):
    # Logits of unit variance cost half a nat above log V; T5 v1.1's own start costs tens of nats.
    model, tokenizer = load_backbone(preset_dir)
    batch = tokenizer(["CC(=O)Cl.CN"] * 2, return_tensors="pt")
    labels = tokenizer(["CC(=O)NC"] * 2, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = model(**batch, labels=labels).loss.item()
    uniform = torch.log(torch.tensor(model.config.vocab_size)).item()
    assert uniform - 1 < loss < uniform + 1


def test_seeding_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(1):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(1):
        assert torch.equal(torch.rand(2), inside)


def test_a_published_model_is_grown_and_keeps_what_it_knows(published_dir, tmp_path):
    backbone = Backbone(name_or_path=str(published_dir))
    prepared = prepare_tokenizer(backbone, smiles=["F/C=C\\F"], words=[])
    prepared.tokenizer.save_pretrained(tmp_path / "tokenizer")
    save_backbone(
        backbone,
        tokenizer_dir=tmp_path / "tokenizer",
        target=tmp_path / "model",
        seed=0,
        new_tokens=["R0", "R1"],
    )
    before = AutoModelForSeq2SeqLM.from_pretrained(published_dir)
    model, tokenizer = load_backbone(tmp_path / "model")
    old = before.get_input_embeddings().weight
    new = model.get_input_embeddings().weight
    assert len(tokenizer) <= len(new)
    assert len(new) > len(old)
    assert torch.equal(new[: len(old)], old)
    assert torch.isfinite(new).all()
    ids = tokenizer("F/C=C\\F R1", return_tensors="pt")["input_ids"]
    assert ids.max() < len(new)
    assert model.lm_head.weight.shape == new.shape


def test_an_output_layer_of_its_own_survives_growing(published_dir, tmp_path):
    # T5 v1.1 and MolT5: gated, the output layer apart from the embeddings, logits not scaled.
    source = tmp_path / "v1.1"
    shutil.copytree(published_dir, source)
    config = json.loads((source / "config.json").read_text())
    del config["scale_decoder_outputs"]
    (source / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    tensors = load_file(source / "model.safetensors")
    head = torch.randn(tensors["shared.weight"].shape)
    save_file({**tensors, "lm_head.weight": head}, source / "model.safetensors", {"format": "pt"})
    save_backbone(
        Backbone(name_or_path=str(source)),
        tokenizer_dir=published_dir,
        target=tmp_path / "model",
        seed=0,
        new_tokens=[f"R{number}" for number in range(12)],
    )
    model, _ = load_backbone(tmp_path / "model")
    assert len(model.lm_head.weight) == len(model.shared.weight) > len(head)
    assert torch.equal(model.lm_head.weight[: len(head)], head)
    assert torch.equal(model.shared.weight[: len(head)], tensors["shared.weight"])
    assert not model.config.scale_decoder_outputs


def test_an_encoder_is_the_encoder_of_the_whole(preset_dir):
    model, tokenizer = load_backbone(preset_dir)
    batch = tokenizer(["CCO"], return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch, labels=batch["input_ids"]).encoder_last_hidden_state
        found = load_encoder(preset_dir)(**batch).last_hidden_state
    torch.testing.assert_close(found, expected)


def test_a_gpu_that_is_not_there_is_one_clear_line():
    if torch.cuda.is_available():
        assert resolve_device(Device.AUTO).type == "cuda"
    else:
        assert resolve_device(Device.AUTO).type == "cpu"
        with pytest.raises(ModelError, match="no GPU is visible"):
            resolve_device(Device.CUDA)
    assert resolve_device(Device.CPU).type == "cpu"


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="is not a model: it has no config"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_a_config_that_is_no_config_is_one_clear_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="is not a model's configuration") as caught:
        load_encoder(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_kind_of_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="type 'bert', expected 't5'"):
        load_backbone(tmp_path)


def _remove(weights):
    weights.unlink()


def _cut(weights):
    weights.write_bytes(weights.read_bytes()[:100])


def _pickle(weights):
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()


def _drop_one(weights):
    tensors = load_file(weights)
    del tensors["encoder.block.0.layer.0.SelfAttention.q.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove, "cannot be loaded as a T5"),
        (_cut, "cannot be loaded as a T5"),
        (_pickle, "Pickled weights are not read: give a revision that has safetensors"),
        (_drop_one, "lacks 1 weights of a T5, such as 'encoder.block.0.layer.0.SelfAttention.q"),
    ],
)
def test_damaged_weights_are_one_clear_line(published_dir, tmp_path, damage, message):
    folder = tmp_path / "model"
    shutil.copytree(published_dir, folder)
    damage(folder / "model.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        load_backbone(folder)
    assert "\n" not in str(caught.value)


def test_a_hub_id_needs_a_commit(preset_dir, tmp_path):
    with pytest.raises(ModelError, match="give its commit as revision"):
        save_backbone(
            Backbone(name_or_path="some/model"),
            tokenizer_dir=preset_dir,
            target=tmp_path,
            seed=0,
        )


def test_an_unreachable_hub_is_one_clear_line(preset_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="some/model' cannot be loaded as a T5") as caught:
        save_backbone(
            Backbone(name_or_path="some/model", revision="0" * 40),
            tokenizer_dir=preset_dir,
            target=tmp_path,
            seed=0,
        )
    assert "\n" not in str(caught.value)
