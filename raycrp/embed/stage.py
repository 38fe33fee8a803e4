"""The embed stage: input and output vectors of D_train by LLM-RT's encoder, once (Eq 4)."""

import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raycrp.arrays import FloatArray
from raycrp.choices import Device
from raycrp.config import Config
from raycrp.model.encode import TextEncoder, tokenize_texts
from raycrp.model.t5 import prepare_tokenizer, save_backbone
from raycrp.model.tokenizers import load_tokenizer_dir
from raycrp.ray_data import THREADS_PER_ACTOR, map_shards
from raycrp.run import RunFolder
from raycrp.schemas import Split, embeddings_schema

logger = logging.getLogger(__name__)

LLM_RT_DIR = "embed/llm_rt"
VECTORS_DIR = f"embed/{Split.TRAIN}"
_ROWS_DIR = f"data/rows/{Split.TRAIN}"
_TOKENIZER_DIR = "data/tokenizer"


def run_embed(config: Config, run: RunFolder) -> dict[str, Any]:
    """Save LLM-RT as it is before training, and embed the training rows with it.

    Rows of other splits are never embedded: an output of theirs must not reach a vector.

    Args:
        config: The resolved configuration.
        run: The run folder, with the data stage done.

    Returns:
        Rows, length of a vector, texts that were cut, passes of the encoder over the rows.

    Raises:
        ModelError: If the backbone or its tokenizer cannot be loaded.
    """
    started = time.monotonic()
    embed = config.embed
    if not run.exists(LLM_RT_DIR):
        _save_llm_rt(run, config=config)
    dim = _read_dim(run)
    num_rows = map_shards(
        run,
        tables={_ROWS_DIR: VECTORS_DIR},
        function=RowEmbedder,
        arguments={
            "run": run,
            "device": config.run.device,
            "token_budget": embed.token_budget,
            "max_tokens": embed.max_tokens,
        },
        schema=embeddings_schema(dim),
        rows_per_shard=embed.rows_per_shard,
        num_actors=embed.num_actors,
        gpus_per_actor=embed.gpus_per_actor,
    )[_ROWS_DIR]
    num_truncated = _count_truncated(run, max_tokens=embed.max_tokens)
    if num_truncated:
        logger.warning("embed.max_tokens=%d cuts %d texts", embed.max_tokens, num_truncated)
    return {
        "rows_in": num_rows,
        "rows_out": num_rows,
        "rejected": 0,
        "dim": dim,
        "truncated_texts": num_truncated,
        "encoder_passes": 1,
        "seconds": round(time.monotonic() - started, 1),
    }


class RowEmbedder:
    """Table function from task rows to vectors; built once in each actor.

    Args:
        run: The run folder that holds LLM-RT.
        device: Where the encoder runs.
        token_budget: Rows times longest row of one padded batch, in tokens.
        max_tokens: Longer texts are cut to this many tokens.
    """

    def __init__(
        self, run: RunFolder, *, device: Device, token_budget: int, max_tokens: int
    ) -> None:
        torch.set_num_threads(THREADS_PER_ACTOR)
        self._encoder = TextEncoder(
            run.local_dir(LLM_RT_DIR),
            device=device,
            token_budget=token_budget,
            max_tokens=max_tokens,
        )

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Vectors of the rows' inputs and outputs; a text that occurs twice is encoded once."""
        texts = rows["input"].to_pylist() + rows["output"].to_pylist()
        inputs, outputs = np.split(self._encoder.encode(texts), 2)
        return pa.table(
            {
                "row_id": rows["row_id"],
                "input_vector": _vector_array(inputs),
                "output_vector": _vector_array(outputs),
            }
        )


def _save_llm_rt(run: RunFolder, *, config: Config) -> None:
    backbone, other = config.model.llm_rt, config.model.llm_crp
    with tempfile.TemporaryDirectory(prefix="raycrp-") as scratch:
        if backbone == other or (backbone.preset and other.preset):
            tokenizer_dir = run.local_dir(_TOKENIZER_DIR)
        else:
            tokenizer_dir = Path(scratch)
            prepared = prepare_tokenizer(backbone, smiles=_iter_texts(run), words=[])
            prepared.tokenizer.save_pretrained(str(tokenizer_dir))
        with run.new_local_dir(LLM_RT_DIR) as folder:
            save_backbone(
                backbone, tokenizer_dir=tokenizer_dir, target=folder, seed=config.run.seed
            )


def _read_dim(run: RunFolder) -> int:
    return int(run.read_json(f"{LLM_RT_DIR}/config.json")["d_model"])


def _count_truncated(run: RunFolder, *, max_tokens: int) -> int:
    # A token is at least a character, but for the end of text and a mark before the first word.
    suspects = [text for text in _iter_texts(run) if len(text) + 2 > max_tokens]
    if not suspects:
        return 0
    tokenizer = load_tokenizer_dir(run.local_dir(LLM_RT_DIR))
    _, is_cut = tokenize_texts(tokenizer, suspects, max_tokens=max_tokens)
    return sum(is_cut)


def _iter_texts(run: RunFolder) -> Iterator[str]:
    for name in run.list_names(_ROWS_DIR):
        table = run.read_table(f"{_ROWS_DIR}/{name}", columns=["input", "output"])
        for column in table.columns:
            yield from column.to_pylist()


def _vector_array(vectors: FloatArray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
