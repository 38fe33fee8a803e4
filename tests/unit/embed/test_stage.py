"""LLM-RT's tokenizer, and the counting of cut texts; the rest is in the integration tests."""

import pyarrow as pa
import pytest

from raycrp.config import Config
from raycrp.embed import stage
from raycrp.model.t5 import build_tokenizer
from raycrp.model.tokenizers import load_tokenizer_dir
from raycrp.run import RunFolder

TEXTS = ["C" * 30, "CC[Xe]", "CC", "C" * 31]


@pytest.fixture
def run(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    table = pa.table({"input": TEXTS, "output": ["N"] * 4})
    run.write_table("data/rows/train/part-00000.parquet", table)
    with run.new_local_dir("data/tokenizer") as folder:
        build_tokenizer(TEXTS, words=["special words"]).save_pretrained(folder)
    return run


def config_with(**model):
    return Config.model_validate({"model": model})


def test_two_presets_share_the_tokenizer_of_the_data(run):
    stage._save_llm_rt(run, config=config_with(llm_crp={"preset": "small"}))
    vocabulary = load_tokenizer_dir(run.local_dir(stage.LLM_RT_DIR)).get_vocab()
    assert vocabulary == load_tokenizer_dir(run.local_dir("data/tokenizer")).get_vocab()
    assert stage._read_dim(run) == 128


def test_a_preset_beside_a_published_model_gets_its_own_tokenizer(run):
    stage._save_llm_rt(run, config=config_with(llm_crp={"name_or_path": "some/t5"}))
    vocabulary = load_tokenizer_dir(run.local_dir(stage.LLM_RT_DIR)).get_vocab()
    assert "▁special" not in vocabulary
    assert "▁determine" in vocabulary


@pytest.mark.parametrize(("max_tokens", "num_cut"), [(8, 2), (31, 1), (32, 0), (100, 0)])
def test_cut_texts_are_counted(run, max_tokens, num_cut):
    # Thirty carbons and the end of text are 31 tokens.
    stage._save_llm_rt(run, config=config_with())
    assert stage._count_truncated(run, max_tokens=max_tokens) == num_cut
