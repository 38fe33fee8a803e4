"""Parts of a prompt that are encoded apart and joined before the decoder.

A part ends with the end-of-text token, as it would if it were encoded alone. T5 knows positions by
their differences only, so that one pass in which no token looks beyond its own part gives the very
vectors of a pass for each part, put one behind the other; the decoder looks at all of them.
"""

import json
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from raycrp.choices import Fusion

_KEY = "raycrp_fusion"


def mark_fusion(folder: Path, fusion: Fusion) -> None:
    """Note in a saved model's configuration how its prompts are read; it stays with the model.

    Args:
        folder: As written by ``save_pretrained``.
        fusion: How instruction, reaction type and input come together.
    """
    if fusion is Fusion.TEXT:
        return
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {_KEY: fusion.value}, indent=2) + "\n", encoding="utf-8")


def fusion_of(model: Any) -> Fusion:
    """How a loaded model reads its prompts."""
    return Fusion(getattr(model.config, _KEY, Fusion.TEXT))


def part_end(model: Any, tokenizer: Any) -> str:
    """What ends a part of a prompt in its text; empty where a prompt is one part.

    Args:
        model: A loaded model.
        tokenizer: Its tokenizer.
    """
    return str(tokenizer.eos_token) if fusion_of(model) is Fusion.HIDDEN else ""


def apply_fusion(model: Any, *, end_id: int) -> None:
    """Let a loaded model encode parts apart if its configuration says so; changed in place.

    Args:
        model: A T5 with an encoder and a decoder.
        end_id: Id of the end-of-text token.
    """
    if fusion_of(model) is Fusion.TEXT:
        return
    encoder = model.get_encoder()
    plain = encoder.forward

    @wraps(plain)
    def forward(
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Encode with a mask that keeps the parts of each row apart."""
        if input_ids is not None:
            if attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
            dtype = encoder.embed_tokens.weight.dtype
            attention_mask = part_mask(input_ids, mask=attention_mask, end_id=end_id, dtype=dtype)
        return plain(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    encoder.forward = forward


def part_mask(
    ids: torch.Tensor, *, mask: torch.Tensor, end_id: int, dtype: torch.dtype
) -> torch.Tensor:
    """What is added to attention scores so that no token looks beyond its part.

    Args:
        ids: Padded token ids, shape ``(rows, length)``.
        mask: 1 at real tokens, same shape.
        end_id: Id of the token that ends a part.
        dtype: Float type of the result.

    Returns:
        0 where a token may look and the least number elsewhere, shape
        ``(rows, 1, length, length)``. Padding looks at the last part, lest a row has nothing to
        look at.
    """
    is_real = mask.bool()
    is_end = (ids == end_id) & is_real
    parts = is_end.cumsum(1) - is_end.long()
    last = parts.masked_fill(~is_real, 0).amax(1, keepdim=True)
    parts = parts.minimum(last)
    may_look = (parts[:, :, None] == parts[:, None, :]) & is_real[:, None, :]
    added = torch.zeros(may_look.shape, dtype=dtype, device=ids.device)
    return added.masked_fill(~may_look, torch.finfo(dtype).min)[:, None]
