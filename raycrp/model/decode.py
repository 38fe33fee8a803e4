"""Answers of a T5: beam search over whole texts, and scores of a fixed set of labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raycrp.arrays import FloatArray
from raycrp.model.answer_scores import score_trees
from raycrp.model.beams import Answer, BeamSettings, search_beams
from raycrp.model.encode import evaluating
from raycrp.model.label_scores import score_paths
from raycrp.model.states import PromptStates, state_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration


@dataclass(frozen=True)
class Hypothesis:
    """One answer of the beam search.

    Args:
        text: The decoded text, without special tokens.
        log_probability: Sum of the log-probabilities of its tokens, the end of text included.
        token_ids: Its tokens, the end of text included where it was reached.
    """

    text: str
    log_probability: float
    token_ids: tuple[int, ...] = ()


def beam_search(
    model: "T5ForConditionalGeneration",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str] | PromptStates,
    *,
    num_beams: int | Sequence[int],
    num_return: int,
    max_new_tokens: int,
    token_budget: int,
    max_input_tokens: int | None = None,
) -> list[list[Hypothesis]]:
    """The most probable answers to each prompt.

    Hypotheses are ranked by their log-probability, without a length penalty.

    Args:
        model: Runs where its weights are; its training mode is restored.
        tokenizer: Its tokenizer.
        prompts: Whole prompts, in any order, or their states; rows of similar length are decoded
            together.
        num_beams: Beams of the search, or of each prompt's; prompts with as many beams are decoded
            together where there are enough of them, and prompts without any are not decoded.
        num_return: Answers for each prompt, at most ``num_beams``; a prompt with fewer beams of
            its own gets as many answers as it has beams.
        max_new_tokens: Longest answer in tokens, the end of text included.
        token_budget: Rows times longest prompt of one padded batch, in tokens.
        max_input_tokens: Longer prompts are cut to this; never cut if unset.

    Returns:
        For each prompt, in order, its hypotheses, best first.

    Raises:
        ValueError: If ``num_return`` exceeds ``num_beams``.
    """
    beams = [num_beams] * len(prompts) if isinstance(num_beams, int) else list(num_beams)
    if beams and num_return > max(beams):
        raise ValueError(f"num_return ({num_return}) exceeds num_beams ({max(beams)})")
    asked = [place for place, width in enumerate(beams) if width]
    results: list[list[Hypothesis]] = [[] for _ in beams]
    batches = state_batches(
        model,
        tokenizer,
        prompts,
        places=asked,
        token_budget=token_budget,
        max_input_tokens=max_input_tokens,
        ranks=[beams[place] for place in asked],
    )
    for places, states, mask in batches:
        of_rows = [beams[place] for place in places]
        settings = _beam_settings(
            model,
            tokenizer,
            num_beams=max(of_rows),
            num_return=min(num_return, max(of_rows)),
            max_new_tokens=max_new_tokens,
        )
        with evaluating(model):
            answers = search_beams(
                model, states=states, mask=mask, settings=settings, beams_per_row=of_rows
            )
        for place, found in zip(places, answers, strict=True):
            results[place] = _hypotheses(tokenizer, found)
    return results


def score_answers(
    model: "T5ForConditionalGeneration",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str] | PromptStates,
    *,
    answers: Sequence[Sequence[tuple[int, ...]]],
    token_budget: int,
) -> list[list[float]]:
    """Log-probability of given answers to each prompt, all tokens of all answers in one pass.

    Args:
        model: Runs where its weights are; its training mode is restored.
        tokenizer: Its tokenizer.
        prompts: Whole prompts, or their states.
        answers: Token ids of the answers to score for each prompt, as of a ``Hypothesis``.
        token_budget: Rows times longest prompt of one padded batch, in tokens.

    Returns:
        For each prompt a log-probability an answer, summed over its tokens.
    """
    asked = [place for place, rows in enumerate(answers) if rows]
    results: list[list[float]] = [[] for _ in answers]
    batches = state_batches(model, tokenizer, prompts, places=asked, token_budget=token_budget)
    for places, states, mask in batches:
        with evaluating(model):
            scores = score_trees(
                model,
                states=states,
                mask=mask,
                answers=[answers[place] for place in places],
                token_budget=token_budget,
            )
        for place, found in zip(places, scores, strict=True):
            results[place] = found
    return results


def score_labels(
    model: "T5ForConditionalGeneration",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    *,
    labels: Sequence[str],
    token_budget: int,
    max_input_tokens: int | None = None,
) -> FloatArray:
    """Log-probability of each of a fixed set of answers.

    Where no label is the beginning of another, a label's score is the probability that the
    answer starts with it: one decoder step for labels of one token. Otherwise the end of text is
    counted too, so that "1" and "10" are told apart.

    Args:
        model: Runs where its weights are; its training mode is restored.
        tokenizer: Its tokenizer.
        prompts: Whole prompts.
        labels: Distinct answers, of any number of tokens each.
        token_budget: Rows times longest prompt of one padded batch, in tokens.
        max_input_tokens: Longer prompts are cut to this; never cut if unset.

    Returns:
        Shape ``(len(prompts), len(labels))``, float32, not renormalised over the labels.

    Raises:
        ValueError: If two labels read as the same tokens.
    """
    paths = label_token_ids(tokenizer, labels)
    scores = np.empty((len(prompts), len(labels)), dtype=np.float32)
    batches = state_batches(
        model,
        tokenizer,
        prompts,
        places=range(len(prompts)),
        token_budget=token_budget,
        max_input_tokens=max_input_tokens,
    )
    for places, states, mask in batches:
        with evaluating(model):
            found = score_paths(model, states=states, mask=mask, paths=paths)
        scores[places] = found.cpu().numpy()
    return scores


def label_token_ids(
    tokenizer: "PreTrainedTokenizerBase", labels: Sequence[str]
) -> list[tuple[int, ...]]:
    """Token ids that tell the labels apart, with the end of text only where it is needed.

    Raises:
        ValueError: If two labels read as the same tokens.
    """
    rows = tokenizer(list(labels), add_special_tokens=False)["input_ids"]
    paths = [tuple(row) for row in rows]
    if len(set(paths)) != len(paths):
        raise ValueError(f"labels {list(labels)} do not differ in the tokenizer's vocabulary")
    prefixes = {path[:end] for path in paths for end in range(len(path))}
    if prefixes.isdisjoint(paths):
        return paths
    return [(*path, tokenizer.eos_token_id) for path in paths]


def _hypotheses(tokenizer: "PreTrainedTokenizerBase", found: Sequence[Answer]) -> list[Hypothesis]:
    texts = tokenizer.batch_decode(
        [list(answer.token_ids) for answer in found], skip_special_tokens=True
    )
    return [
        Hypothesis(text, answer.log_probability, answer.token_ids)
        for text, answer in zip(texts, found, strict=True)
    ]


def _beam_settings(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    num_beams: int,
    num_return: int,
    max_new_tokens: int,
) -> BeamSettings:
    # Rows of the embedding beyond the tokenizer's vocabulary are padding and mean nothing.
    unused = range(len(tokenizer), model.config.vocab_size)
    banned = {tokenizer.pad_token_id, tokenizer.unk_token_id, *unused}
    return BeamSettings(
        num_beams=num_beams,
        num_return=num_return,
        max_new_tokens=max_new_tokens,
        start_id=model.config.decoder_start_token_id,
        end_id=tokenizer.eos_token_id,
        banned_ids=tuple(sorted(token for token in banned if token is not None)),
    )
