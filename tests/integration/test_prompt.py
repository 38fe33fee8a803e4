"""Adaptive instructions by a real encoder."""

import pytest
import torch
from run_folders import make_config, write_prompted_run
from scipy.spatial.distance import cdist

from raycrp.choices import Task
from raycrp.prompt.templates import load_templates

pytestmark = pytest.mark.integration


def test_each_row_gets_the_nearest_of_its_own_templates(tmp_path):
    from transformers import AutoTokenizer, T5EncoderModel

    run = write_prompted_run(make_config(tmp_path), num_train=12, num_validation=2)
    folder = run.path("prompt/llm_crp")
    encoder = T5EncoderModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def embed(text):
        with torch.no_grad():
            hidden = encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state
        return hidden[0].mean(0).numpy()

    for row in run.read_table("prompt/train").to_pylist():
        templates = load_templates()[Task(row["task"])]
        distances = cdist([embed(row["input"])], [embed(t.text) for t in templates])[0]
        chosen = [t.id for t in templates].index(row["template_id"])
        assert distances[chosen] <= distances.min() + 1e-5
