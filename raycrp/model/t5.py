"""Backbones: a T5 from scratch, from a local folder or from the hub, saved as one plain folder."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from raycrp.choices import Device, Preset
from raycrp.config import Backbone
from raycrp.errors import ModelError
from raycrp.model.copying import start_copying
from raycrp.model.fusion import apply_fusion
from raycrp.model.tokenizers import (
    EOS,
    PAD,
    PreparedTokenizer,
    TokenizerReport,
    add_tokens,
    build_tokenizer,
    first_line,
    load_tokenizer_dir,
    prepare_tokenizer,
    require_revision,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel, T5ForConditionalGeneration

__all__ = [
    "PreparedTokenizer",
    "TokenizerReport",
    "build_tokenizer",
    "load_backbone",
    "load_encoder",
    "num_parameters",
    "prepare_tokenizer",
    "resolve_device",
    "save_backbone",
    "seeded",
]

logger = logging.getLogger(__name__)

PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    Preset.TINY: {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_heads": 4, "num_layers": 3},
    Preset.SMALL: {"d_model": 256, "d_kv": 32, "d_ff": 1024, "num_heads": 8, "num_layers": 4},
}
"""Sizes of the from-scratch models; encoder and decoder have ``num_layers`` each."""

_VOCABULARY_MULTIPLE = 8
_DROPOUT_RATE = 0.1
_COMMON_TOKENS = (
    *("c", "C", "(", ")", "1", "O", "=", ".", "N", "2", EOS, PAD, "n", "Cl", "F", "[O-]"),
    *(">>", "3", "Br", "[N+]", "S", "/", "#", "-", "s", "P", "[C@H]", "[C@@H]", "I", "B", "o"),
    *("[nH]", "[Si]", "\\", "4", "[Na+]", "[K+]", "[H]"),
)
"""Tokens of reactions by frequency."""


def save_backbone(
    backbone: Backbone,
    *,
    tokenizer_dir: Path,
    target: Path,
    seed: int,
    new_tokens: Sequence[str] = (),
    starts_copying: bool = False,
) -> None:
    """Create or load a T5, fit its embeddings to a tokenizer, and save both in one folder.

    Args:
        backbone: Preset, local folder or hub id.
        tokenizer_dir: Folder of the tokenizer that goes with it.
        target: Folder to write; loads with ``AutoModelForSeq2SeqLM`` and ``AutoTokenizer``.
        seed: Seed of the initialisation of new weights.
        new_tokens: Whole tokens to add, such as names of reaction types.
        starts_copying: Whether a preset's weights copy from the input before any training, see
            `start_copying`; such a model has no dropout, since one so small underfits.

    Raises:
        ModelError: If the tokenizer or the model cannot be loaded.
    """
    tokenizer = load_tokenizer_dir(tokenizer_dir)
    add_tokens(tokenizer, new_tokens)
    _hide_progress()
    with seeded(seed):
        if backbone.preset is not None:
            rate = 0.0 if starts_copying else _DROPOUT_RATE
            model = _new_model(backbone.preset, tokenizer=tokenizer, dropout_rate=rate)
            if starts_copying:
                start_copying(model, common_ids=_common_ids(tokenizer))
        else:
            model = _published_model(backbone)
            _grow_embeddings(model, num_tokens=len(tokenizer))
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    name = backbone.preset or backbone.name_or_path
    logger.info("T5 %s: %d tokens, %d parameters", name, len(tokenizer), num_parameters(model))


def load_backbone(
    folder: Path | str, *, device: Device = Device.CPU
) -> "tuple[T5ForConditionalGeneration, PreTrainedTokenizerBase]":
    """A saved T5 in evaluation mode, in float32, with its tokenizer.

    Args:
        folder: As written by ``save_backbone`` or ``save_pretrained``.
        device: Where the model goes.

    Raises:
        ModelError: If the folder is not a T5.
    """
    model: Any = _load_model(str(folder), revision=None).eval()
    tokenizer = load_tokenizer_dir(folder)
    apply_fusion(model, end_id=tokenizer.eos_token_id)
    return model.to(resolve_device(device)), tokenizer


def load_encoder(folder: Path | str) -> "T5EncoderModel":
    """The encoder of a saved T5 in evaluation mode, in float32, on the CPU.

    Raises:
        ModelError: If the folder is not a T5.
    """
    from transformers import T5EncoderModel

    encoder: T5EncoderModel = _load(T5EncoderModel, str(folder), revision=None)
    encoder.eval()
    return encoder


def resolve_device(device: Device) -> torch.device:
    """The torch device of a setting; ``auto`` is a GPU where there is one.

    Raises:
        ModelError: If a GPU is asked for and there is none.
    """
    if device is Device.CUDA and not torch.cuda.is_available():
        raise ModelError("run.device is 'cuda' but no GPU is visible here; use 'auto' or 'cpu'")
    use_gpu = device is not Device.CPU and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def num_parameters(model: torch.nn.Module) -> int:
    """Number of weights, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers start from a seed inside the block; the state before comes back."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _new_model(
    preset: Preset, *, tokenizer: Any, dropout_rate: float
) -> "T5ForConditionalGeneration":
    from transformers import T5Config, T5ForConditionalGeneration

    vocab_size = -(-len(tokenizer) // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
    config = T5Config(
        vocab_size=vocab_size,
        feed_forward_proj="relu",
        dropout_rate=dropout_rate,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **PRESETS[preset],
    )
    # T5 starts an answer with the padding token.
    config.decoder_start_token_id = tokenizer.pad_token_id
    return T5ForConditionalGeneration(config)


def _common_ids(tokenizer: Any) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[token] for token in _COMMON_TOKENS if token in vocabulary]


def _published_model(backbone: Backbone) -> "T5ForConditionalGeneration":
    return _load_model(require_revision(backbone), revision=backbone.revision)


def _load_model(name: str, *, revision: str | None) -> "T5ForConditionalGeneration":
    from transformers import T5ForConditionalGeneration

    model: T5ForConditionalGeneration = _load(T5ForConditionalGeneration, name, revision=revision)
    return model


def _load(kind: Any, name: str, *, revision: str | None) -> Any:
    from safetensors import SafetensorError

    is_local = Path(name).is_dir()
    if is_local:
        _require_t5(Path(name))
    _hide_progress()
    try:
        model, report = kind.from_pretrained(
            name,
            revision=None if is_local else revision,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=is_local,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(_explain(name, error)) from error
    # Weights that are missing would be made up at random without a word.
    if report["missing_keys"]:
        raise ModelError(
            f"'{name}' lacks {len(report['missing_keys'])} weights of a T5, such as "
            f"'{min(report['missing_keys'])}'; give a whole model"
        )
    return model


def _hide_progress() -> None:
    """No progress bars of transformers: reading and writing weights has a line of our own."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def _explain(name: str, error: Exception) -> str:
    message = f"'{name}' cannot be loaded as a T5: {first_line(error)}"
    if "safetensors" not in str(error):
        return message
    return (
        f"{message} Pickled weights are not read: give a revision that has safetensors (many hub "
        "repositories have one as a pull request), or save the model again with save_pretrained"
    )


def _require_t5(folder: Path) -> None:
    path = folder / "config.json"
    try:
        kind = json.loads(path.read_text()).get("model_type")
    except FileNotFoundError as error:
        raise ModelError(
            f"'{folder}' is not a model: it has no config.json; give a folder that "
            "save_pretrained wrote"
        ) from error
    except (ValueError, AttributeError, OSError) as error:
        raise ModelError(f"'{path}' is not a model's configuration: {first_line(error)}") from error
    if kind != "t5":
        raise ModelError(f"'{folder}' holds a model of type '{kind}', expected 't5'")


def _grow_embeddings(model: Any, *, num_tokens: int) -> None:
    if num_tokens <= model.get_input_embeddings().num_embeddings:
        return
    # T5 v1.1 has an output layer of its own, which growing would overwrite if it took it for tied.
    model.config.tie_word_embeddings = model.lm_head.weight is model.shared.weight
    model.resize_token_embeddings(num_tokens, pad_to_multiple_of=_VOCABULARY_MULTIPLE)
