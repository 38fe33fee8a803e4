"""Texts to vectors: masked mean pooling over a T5 encoder's hidden states (Eq 4)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raycrp.arrays import FloatArray
from raycrp.choices import Device
from raycrp.model.t5 import load_encoder, resolve_device
from raycrp.model.tokenizers import load_tokenizer_dir

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextEncoder:
    """A saved encoder, loaded once, that turns texts into vectors.

    Args:
        folder: As written by ``save_backbone``.
        device: Where the model runs.
        token_budget: Rows times longest row of one padded batch, in tokens.
        max_tokens: Longer texts are cut to this many tokens, and counted.
    """

    def __init__(self, folder: Path, *, device: Device, token_budget: int, max_tokens: int) -> None:
        encoder: Any = load_encoder(folder)
        self._encoder = encoder.to(resolve_device(device))
        self._tokenizer = load_tokenizer_dir(folder)
        self.token_budget = token_budget
        self.max_tokens = max_tokens
        self.num_truncated = 0

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._encoder.config.d_model)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of texts.

        Args:
            texts: Any texts, repeated ones too; each distinct text is encoded once.

        Returns:
            Shape ``(len(texts), dim)``, float32, in the order of ``texts``.
        """
        vectors, num_truncated = encode_texts(
            self._encoder,
            tokenizer=self._tokenizer,
            texts=texts,
            token_budget=self.token_budget,
            max_tokens=self.max_tokens,
        )
        self.num_truncated += num_truncated
        return vectors

    def save(self, folder: Path) -> None:
        """Write the encoder and its tokenizer as a folder that loads again."""
        self._encoder.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)


def encode_texts(
    encoder: torch.nn.Module,
    *,
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    token_budget: int,
    max_tokens: int,
) -> tuple[FloatArray, int]:
    """Vectors of texts by a live encoder, dropout off while it runs.

    Args:
        encoder: A T5 encoder: takes ``input_ids`` and ``attention_mask``, gives hidden states.
        tokenizer: Its tokenizer.
        texts: Any texts; each distinct text is encoded once.
        token_budget: Rows times longest row of one padded batch, in tokens.
        max_tokens: Longer texts are cut to this many tokens.

    Returns:
        Vectors of shape ``(len(texts), dim)``, float32, and the number of texts that were cut.

    Source:
        Eq 4.
    """
    if not texts:
        return np.zeros((0, encoder_dim(encoder)), dtype=np.float32), 0
    distinct = list(dict.fromkeys(texts))
    rows, is_cut = tokenize_texts(tokenizer, distinct, max_tokens=max_tokens)
    vectors = encode_token_ids(
        encoder, rows=rows, pad_id=tokenizer.pad_token_id, token_budget=token_budget
    )
    index = {text: i for i, text in enumerate(distinct)}
    places = np.array([index[text] for text in texts])
    return vectors[places], int(np.asarray(is_cut)[places].sum())


def encode_token_ids(
    encoder: torch.nn.Module, *, rows: Sequence[Sequence[int]], pad_id: int, token_budget: int
) -> FloatArray:
    """Vectors of token ids that are there already, such as a trainer's cached rows.

    Args:
        encoder: A T5 encoder.
        rows: Token ids of each row, without padding.
        pad_id: Id of the padding token.
        token_budget: Rows times longest row of one padded batch, in tokens.

    Returns:
        Shape ``(len(rows), dim)``, float32.
    """
    vectors = np.empty((len(rows), encoder_dim(encoder)), dtype=np.float32)
    device = next(encoder.parameters()).device
    with evaluating(encoder):
        for places in length_batches([len(row) for row in rows], token_budget=token_budget):
            ids, mask = pad_rows([rows[i] for i in places], pad_id=pad_id, device=device)
            hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            vectors[places] = mean_pool(hidden, mask=mask).cpu().numpy()
    return vectors


def mean_pool(hidden: torch.Tensor, *, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the hidden states over real tokens, the end of text included.

    Args:
        hidden: Shape ``(rows, length, dim)``, any float type.
        mask: Shape ``(rows, length)``, 1 at real tokens; at least one in each row.

    Returns:
        Shape ``(rows, dim)``, float32.

    Source:
        Eq 4.
    """
    weights = mask.to(torch.float32).unsqueeze(-1)
    return (hidden.to(torch.float32) * weights).sum(dim=1) / weights.sum(dim=1)


def tokenize_texts(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, max_tokens: int | None
) -> tuple[list[list[int]], list[bool]]:
    """Token ids of texts, each ending with the end-of-text token.

    Args:
        tokenizer: Its tokenizer.
        texts: Any texts.
        max_tokens: Longer rows are cut, the end-of-text token stays; never cut if unset.

    Returns:
        Token ids of each text, and whether it was cut.
    """
    rows: list[list[int]] = tokenizer(list(texts))["input_ids"] if texts else []
    if max_tokens is None:
        return rows, [False] * len(rows)
    is_cut = [len(row) > max_tokens for row in rows]
    cut = [
        [*row[: max_tokens - 1], row[-1]] if long else row
        for row, long in zip(rows, is_cut, strict=True)
    ]
    return cut, is_cut


def length_batches(
    lengths: Sequence[int], *, token_budget: int, ranks: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Group rows of similar length, so that little is padded.

    Args:
        lengths: Tokens of each row.
        token_budget: Rows times longest row of a batch; a longer row makes a batch of its own.
        ranks: Rows of the highest rank come first, whatever their length; one rank if None.

    Yields:
        Places of the rows of a batch, longest rows first; every place occurs once.
    """
    batch: list[int] = []
    longest = 0
    ranks = ranks or [0] * len(lengths)
    for place in sorted(range(len(lengths)), key=lambda i: (-ranks[i], -lengths[i], i)):
        longest = max(longest, lengths[place])
        if batch and (len(batch) + 1) * longest > token_budget:
            yield batch
            batch, longest = [], lengths[place]
        batch.append(place)
    if batch:
        yield batch


def pad_rows(
    rows: Sequence[Sequence[int]], *, pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids as one padded batch.

    Returns:
        Ids and mask, both int64 of shape ``(rows, longest)``; the mask is 1 at real tokens.
    """
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids.to(device), mask.to(device)


def encoder_dim(encoder: torch.nn.Module) -> int:
    """Length of an encoder's hidden states."""
    config: Any = encoder.config
    return int(config.d_model)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Dropout and gradients off inside the block; the training mode comes back after it."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad() if _is_partitioned(model) else torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _is_partitioned(model: torch.nn.Module) -> bool:
    """Whether ZeRO 3 gathers the weights as they are needed.

    It may keep what it gathered for the next training step, where a tensor that was made in
    inference mode is refused.
    """
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())
