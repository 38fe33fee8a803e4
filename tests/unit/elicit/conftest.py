"""A small run with a T5 so small that a trial takes a moment."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from raycrp.choices import Device, LabelerKind, Task
from raycrp.elicit.llm_rt import LlmRtSettings
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.vectors import ArrayVectors
from raycrp.model.annotation import annotation_words
from raycrp.model.encode import TextEncoder
from raycrp.model.tokenizers import build_tokenizer
from raycrp.model.tuning import TuningSettings
from raycrp.run import RunFolder

TEXTS = ["C" * (i % 5 + 1) + ("O" if i % 2 else "N") for i in range(40)]


@pytest.fixture(scope="module")
def elicit_run(tmp_path_factory):
    run = RunFolder(str(tmp_path_factory.mktemp("runs")), "run")
    tokenizer = build_tokenizer(TEXTS, words=annotation_words())
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    with run.new_local_dir("embed/llm_rt") as folder:
        tokenizer.save_pretrained(folder)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    return run


@pytest.fixture(scope="module")
def task_rows(elicit_run):
    encoder = TextEncoder(
        elicit_run.local_dir("embed/llm_rt"), device=Device.CPU, token_budget=1_000, max_tokens=64
    )
    vectors = encoder.encode(TEXTS)
    places = np.arange(40)
    return TaskRows(
        task=Task.FORWARD,
        row_ids=places,
        reaction_keys=pa.chunked_array([[f"key{i}" for i in range(40)]]),
        inputs=pa.chunked_array([TEXTS]),
        outputs=pa.chunked_array([TEXTS]),
        vectors=ArrayVectors(vectors, vectors),
        train=places[:24],
        valid=places[24:32],
        test=places[32:],
    )


@pytest.fixture
def llm_rt_settings():
    return LlmRtSettings(
        kind=LabelerKind.HEAD,
        has_feedback=False,
        tuning=TuningSettings(max_epochs=2, patience=2, batch_size=8, learning_rate=1e-2),
        token_budget=1_000,
        max_tokens=64,
        device=Device.CPU,
    )
