"""Tokenizers: our own for from-scratch presets, completed ones for published backbones.

Our own reads SMILES atom by atom and English word by word, and loses nothing: every printable
ASCII character is in its vocabulary, so ``decode(encode(text)) == text`` and no ``<unk>`` appears.
"""

import json
import logging
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from raycrp.config import Backbone
from raycrp.errors import ModelError
from raycrp.model.annotation import annotation_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
SMILES_CHARACTERS = string.ascii_letters + string.digits + "()[].=#$:/\\@+-%*>~"
"""Characters that a SMILES or reaction SMILES may hold."""

_SPACE = "▁"
_PRINTABLE = string.ascii_letters + string.digits + string.punctuation
_ATOMS_AND_RINGS = re.compile(r"\[[^\[\]]+\]|%\d\d")
_WORD = re.compile(r"[A-Za-z]+(?:[-'][A-Za-z]+)*")
_SMILES_WORD = re.compile(r"(?:Cl|Br|[BCNOPSFI])+")
_MIN_COUNT = 5
_MAX_ATOMS = 1_024
_REPORT_TEXTS = 2_000


@dataclass(frozen=True)
class TokenizerReport:
    """What a backbone's tokenizer lacked for the data at hand.

    Args:
        vocabulary_size: Tokens, the added ones included.
        added: Characters and words added to the vocabulary.
        unk_rate_before: Share of ``<unk>`` among the tokens of the texts looked at, as published.
        unk_rate_after: The same with what was added.
        lossy_fraction: Share of the texts looked at that decoding does not give back.
    """

    vocabulary_size: int
    added: tuple[str, ...]
    unk_rate_before: float
    unk_rate_after: float
    lossy_fraction: float

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class PreparedTokenizer:
    """A tokenizer that is ready for a run.

    Args:
        tokenizer: The tokenizer, still to be saved.
        report: What had to be done to it.
    """

    tokenizer: "PreTrainedTokenizerBase"
    report: TokenizerReport


def prepare_tokenizer(
    backbone: Backbone, *, smiles: Iterable[str], words: Sequence[str]
) -> PreparedTokenizer:
    """The tokenizer of a backbone: built from the data for a preset, else completed for it.

    Args:
        backbone: Preset, local folder or hub id.
        smiles: SMILES texts of the data.
        words: English texts that prompts may hold.

    Raises:
        ModelError: If ``name_or_path`` holds no tokenizer.
    """
    if backbone.preset is None:
        return complete_tokenizer(load_tokenizer(backbone), smiles=smiles)
    texts = iter(smiles)
    sample = list(islice(texts, _REPORT_TEXTS))
    tokenizer = build_tokenizer(chain(sample, texts), words=words)
    rate = unk_rate(tokenizer, sample)
    report = TokenizerReport(
        vocabulary_size=len(tokenizer),
        added=(),
        unk_rate_before=rate,
        unk_rate_after=rate,
        lossy_fraction=lossy_fraction(tokenizer, sample),
    )
    return PreparedTokenizer(tokenizer, report)


def build_tokenizer(smiles: Iterable[str], *, words: Sequence[str]) -> "PreTrainedTokenizerFast":
    """Tokenizer of our own: an atom, a bond or an English word is a token.

    Bracket atoms and two-digit ring closures that are frequent are single tokens, rare ones are
    spelled by character. The same data gives the same tokenizer.

    Args:
        smiles: SMILES texts of the data, of any number.
        words: English texts; each of their words, and of the annotation prompt's, is a token.

    Returns:
        A tokenizer with pad id 0, end-of-text id 1 and unknown id 2 that appends the end of text.
    """
    from transformers import PreTrainedTokenizerFast

    english = _english_words([*words, *annotation_words()])
    return PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer_backend(_vocabulary(smiles, english), english),
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
    )


def complete_tokenizer(
    tokenizer: "PreTrainedTokenizerBase", *, smiles: Iterable[str]
) -> PreparedTokenizer:
    r"""Add the SMILES characters that a published tokenizer cannot read (T5's lacks ``\\``).

    Args:
        tokenizer: Changed in place, or replaced by one that reads no spaces after added tokens.
        smiles: SMILES texts of the data; their characters are added too.
    """
    texts: list[str] = []
    characters = set(SMILES_CHARACTERS)
    for text in smiles:
        characters.update(text)
        if len(texts) < _REPORT_TEXTS:
            texts.append(text)
    rate_before = unk_rate(tokenizer, texts)
    missing = sorted(c for c in characters if not c.isspace() and _is_unknown(tokenizer, c))
    completed = _without_inner_spaces(tokenizer) if missing else tokenizer
    add_tokens(completed, missing)
    report = TokenizerReport(
        vocabulary_size=len(completed),
        added=tuple(missing),
        unk_rate_before=rate_before,
        unk_rate_after=unk_rate(completed, texts),
        lossy_fraction=lossy_fraction(completed, texts),
    )
    logger.info("tokenizer: %s", report)
    return PreparedTokenizer(completed, report)


def load_tokenizer(backbone: Backbone) -> "PreTrainedTokenizerBase":
    """The published tokenizer of a local folder or hub id.

    Raises:
        ModelError: If there is none, or a hub id comes without a revision.
    """
    return load_tokenizer_dir(require_revision(backbone), revision=backbone.revision)


def require_revision(backbone: Backbone) -> str:
    """Name of a local folder or of a hub id that comes with its commit.

    Raises:
        ModelError: If it is no folder and has no revision.
    """
    name = str(backbone.name_or_path)
    if not Path(name).is_dir() and backbone.revision is None:
        raise ModelError(
            f"'{name}' is no local folder; for a hub id give its commit as revision, "
            "so that the run can be repeated"
        )
    return name


def load_tokenizer_dir(
    folder: Path | str, *, revision: str | None = None
) -> "PreTrainedTokenizerBase":
    """A tokenizer from a plain folder (or hub id), without remote code.

    Raises:
        ModelError: If there is none.
    """
    from transformers import AutoTokenizer

    is_local = Path(folder).is_dir()
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder),
            revision=None if is_local else revision,
            trust_remote_code=False,
            local_files_only=is_local,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = first_line(error)
        if "tiktoken" in reason and find_spec("sentencepiece") is None:
            reason = "it is a SentencePiece file; pip install sentencepiece to read it"
        raise ModelError(f"'{folder}' holds no tokenizer: {reason}") from error
    return tokenizer


def add_tokens(tokenizer: "PreTrainedTokenizerBase", tokens: Sequence[str]) -> int:
    """Add whole tokens that are not in the vocabulary yet.

    A token of several letters and digits, such as ``F5``, is found only where it stands alone.

    Returns:
        How many were added.
    """
    from transformers import AddedToken

    vocabulary = tokenizer.get_vocab()
    new = [
        AddedToken(token, single_word=len(token) > 1, normalized=False)
        for token in dict.fromkeys(tokens)
        if token not in vocabulary
    ]
    return int(tokenizer.add_tokens(new))


def unk_rate(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> float:
    """Share of ``<unk>`` among the tokens of the texts; 0 where there are none."""
    if not texts:
        return 0.0
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    num_tokens = sum(map(len, ids))
    num_unknown = sum(row.count(tokenizer.unk_token_id) for row in ids)
    return num_unknown / num_tokens if num_tokens else 0.0


def lossy_fraction(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> float:
    """Share of texts that encoding and decoding does not give back exactly."""
    if not texts:
        return 0.0
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    decoded = tokenizer.batch_decode(ids)
    return sum(a != b for a, b in zip(texts, decoded, strict=True)) / len(texts)


def _tokenizer_backend(vocabulary: dict[str, int], english: Sequence[str]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    # A BPE without merges that looks up whole pieces first: a known piece is one token, any other
    # is spelled by character.
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token=UNK, ignore_merges=True))
    backend.normalizer = normalizers.Replace(" ", _SPACE)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_piece_pattern(english)), "isolated")
    backend.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.Fuse()])
    backend.post_processor = TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, 1)]
    )
    return backend


def _piece_pattern(english: Sequence[str]) -> str:
    pieces = [r"\[[^\[\]]+\]", r"%\d\d", "Cl", "Br", ">>", r"[\s\S]"]
    if english:
        words = "|".join(map(re.escape, sorted(english, key=len, reverse=True)))
        # A word stands at the start or after a space, and ends at a space or punctuation.
        ending = rf"(?![^{_SPACE}.,;:?!'\"\-])"
        pieces.insert(0, rf"(?:\A|{_SPACE})(?:{words}){ending}")
    return "|".join(pieces)


def _vocabulary(smiles: Iterable[str], english: Sequence[str]) -> dict[str, int]:
    tokens = [PAD, EOS, UNK, _SPACE, *_PRINTABLE, "Cl", "Br", ">>"]
    tokens += _frequent_pieces(smiles)
    tokens += [_SPACE + word for word in english] + list(english)
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def _frequent_pieces(smiles: Iterable[str]) -> list[str]:
    counts: Counter[str] = Counter()
    for text in smiles:
        counts.update(_ATOMS_AND_RINGS.findall(text))
    frequent = (piece for piece, count in counts.items() if count >= _MIN_COUNT)
    ranked = sorted(frequent, key=lambda piece: (-counts[piece], piece))
    return [piece for piece in islice(ranked, _MAX_ATOMS) if piece.isascii()]


def _english_words(texts: Sequence[str]) -> list[str]:
    words = {word for text in texts for word in _WORD.findall(text)}
    # "CO" or "I" reads as a molecule too, and stays one.
    return sorted(word for word in words if not _SMILES_WORD.fullmatch(word))


def _is_unknown(tokenizer: "PreTrainedTokenizerBase", character: str) -> bool:
    # Some characters are known at the start of a word only.
    for text in (character, f"C{character}C"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.unk_token_id in ids or str(tokenizer.decode(ids)).strip() != text:
            return True
    return False


def _without_inner_spaces(tokenizer: Any) -> "PreTrainedTokenizerBase":
    """T5's tokenizers read a space after every added token; here only where one is written."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    values = json.loads(tokenizer.backend_tokenizer.to_str())
    if '"Metaspace"' not in json.dumps(values["pre_tokenizer"]):
        return cast("PreTrainedTokenizerBase", tokenizer)
    metaspace = {
        "type": "Metaspace",
        "replacement": _SPACE,
        "prepend_scheme": "first",
        "split": True,
    }
    values["pre_tokenizer"] = metaspace
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(values)),
        pad_token=tokenizer.pad_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        clean_up_tokenization_spaces=False,
    )


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type's name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
