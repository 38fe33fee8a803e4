"""Instructions that follow the live encoder while it trains (Eq 10-11).

Template vectors are made anew every ``refresh_steps`` steps. With 1, each step first encodes its
own inputs and chooses, as in the paper: exact, at the price of one more encoder pass. Above 1 a
row's *next* instruction is chosen from the hidden states that its input's tokens have in this
step's own training pass, so that no input is encoded twice; the choice is one visit old. It takes
effect with the next epoch, so that where tasks are mixed such that a row comes up several times in
one, all its visits there have the same instruction, and the last pass over the rows decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from raycrp.arrays import IntArray
from raycrp.choices import InstructionChoice
from raycrp.model.encode import encode_token_ids, mean_pool, tokenize_texts
from raycrp.prompt.select import adaptability, choose_instructions
from raycrp.prompt.templates import known_templates, load_templates
from raycrp.train.batches import Batch, Collator, to_device
from raycrp.train.tokens import TASKS, TokenTable

_UNSEEN = -1
_BASE = 128
_TOKEN_BUDGET = 16_384
_MAX_TEMPLATE_TOKENS = 512


class Instructions:
    """The instruction of every training row, now and at its next visit.

    Args:
        table: Token table with the prompt stage's choices.
        choice: How instructions are chosen; only ``adaptive`` ones ever change.
        refresh_steps: Steps between refreshes; None keeps the prompt stage's choices.
        device: Where collectives want their tensors.
    """

    def __init__(
        self,
        table: TokenTable,
        *,
        choice: InstructionChoice,
        refresh_steps: int | None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._tasks = table.tasks
        self._refresh_steps = refresh_steps if choice is InstructionChoice.ADAPTIVE else None
        self._current = table.templates.astype(np.int8)
        # Of a row's visits the largest number stays, whichever workers they fall to: the number of
        # the pass, then the place of the template.
        self._upcoming = np.full(table.num_rows, _UNSEEN, dtype=np.int64)
        self._vectors: dict[int, Any] = {}
        self._device = device
        self._pending: _Pending | None = None

    @property
    def is_live(self) -> bool:
        """Whether choices follow the encoder."""
        return self._refresh_steps is not None

    @property
    def is_exact(self) -> bool:
        """Whether each step chooses for its own rows by a pass of its own."""
        return self._refresh_steps == 1

    def templates(self, rows: IntArray) -> IntArray:
        """Place of the instruction of each of these rows."""
        return self._current[rows].astype(np.int64)

    def needs_refresh(self, step: int) -> bool:
        """Whether the template vectors are to be made anew before this step."""
        if self._refresh_steps is None:
            return False
        return step % self._refresh_steps == 0 or not self._vectors

    def refresh(self, encoder: torch.nn.Module, *, tokenizer: Any) -> None:
        """Encode all templates with the live encoder."""
        self._settle()
        self._vectors = template_vectors(encoder, tokenizer=tokenizer)

    def choose(
        self, encoder: torch.nn.Module, *, rows: IntArray, collator: Collator, pad_id: int
    ) -> None:
        """Choose for the rows of a micro batch at once, by one encoder pass over their inputs.

        It is one pass whatever their lengths: ZeRO 3 needs as many on each worker.
        """
        inputs = collator.plain_inputs(rows)
        vectors = encode_token_ids(
            encoder,
            rows=inputs,
            pad_id=pad_id,
            token_budget=len(inputs) * max(map(len, inputs)),
        )
        self._current[rows] = nearest_templates(
            vectors, tasks=self._tasks[rows], template_vectors=self._vectors
        )
        self._upcoming[rows] = self._current[rows]

    def observe(self, batch: Batch, *, hidden: torch.Tensor) -> None:
        """Choose for these rows' next visit, from the hidden states of their training pass.

        Args:
            batch: The micro batch.
            hidden: The encoder's last hidden states, shape ``(rows, prompt_length, dim)``.
        """
        if not self.is_live or self.is_exact or not batch.is_counted:
            return
        mask = to_device(batch.pooled_mask, hidden.device)
        pooled = mean_pool(hidden.detach(), mask=mask)
        self._settle()
        self._pending = _Pending(batch, pooled)

    def gather(self) -> None:
        """Share what each worker chose; every worker calls this."""
        self._settle()
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            shared = torch.from_numpy(self._upcoming).to(self._device)
            torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
            self._upcoming = shared.cpu().numpy()
        if self.is_exact:
            self._take_effect()

    def start_epoch(self) -> None:
        """Let the choices for next visits take effect; every worker calls this."""
        self.gather()
        self._take_effect()
        self._upcoming[:] = _UNSEEN

    def entropy_bits(self, rows: IntArray) -> float:
        """Entropy of the instructions of these rows within their tasks, in bits; at most 3.58."""
        pairs = self._tasks[rows] * 100 + self._current[rows]
        joint = _entropy(np.unique(pairs, return_counts=True)[1])
        return joint - _entropy(np.unique(self._tasks[rows], return_counts=True)[1])

    def usage(self, rows: IntArray) -> dict[str, dict[str, int]]:
        """How many of these rows each instruction has now, by task and template."""
        counts: dict[str, dict[str, int]] = {}
        for number in np.unique(self._tasks[rows]):
            templates = known_templates(TASKS[number])
            places = self._current[rows][self._tasks[rows] == number]
            found = np.bincount(places, minlength=len(templates)).tolist()
            names = [template.id for template in templates]
            counts[TASKS[number].value] = dict(zip(names, found, strict=True))
        return counts

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps; call `gather` first."""
        self._settle()
        vectors = {
            f"vectors_{task}": torch.from_numpy(array) for task, array in self._vectors.items()
        }
        return {
            "current": torch.from_numpy(self._current.copy()),
            "upcoming": torch.from_numpy(self._upcoming.copy()),
            **vectors,
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a checkpoint's choices."""
        self._pending = None
        self._current = state["current"].numpy().copy()
        self._upcoming = state["upcoming"].numpy().astype(np.int64)
        self._vectors = {
            task: state[f"vectors_{task}"].numpy()
            for task in range(len(TASKS))
            if f"vectors_{task}" in state
        }

    def _settle(self) -> None:
        """Choose for the rows observed last, whose vectors have reached the CPU meanwhile."""
        if self._pending is None:
            return
        batch = self._pending.batch
        choices = nearest_templates(
            self._pending.vectors(),
            tasks=self._tasks[batch.rows],
            template_vectors=self._vectors,
        )
        np.maximum.at(self._upcoming, batch.rows, batch.passes * _BASE + choices)
        self._pending = None

    def _take_effect(self) -> None:
        seen = self._upcoming != _UNSEEN
        self._current[seen] = self._upcoming[seen] % _BASE


class _Pending:
    """Vectors of a micro batch on their way to the CPU, which does not wait for them yet.

    Args:
        batch: The micro batch.
        pooled: Its rows' vectors, shape ``(rows, dim)``.
    """

    def __init__(self, batch: Batch, pooled: torch.Tensor) -> None:
        self.batch = batch
        self._copy = pooled.to("cpu", non_blocking=True)
        self._copied = None
        if pooled.device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(pooled.device))

    def vectors(self) -> Any:
        """As a numpy array."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copy.numpy()


def template_vectors(encoder: torch.nn.Module, *, tokenizer: Any) -> dict[int, Any]:
    """Vectors of all templates by a live encoder.

    Returns:
        By place of the task in ``Task``: shape ``(num_templates, dim)``, float32.
    """
    library = load_templates()
    texts = [template.text for task in TASKS for template in library[task]]
    rows, _ = tokenize_texts(tokenizer, texts, max_tokens=_MAX_TEMPLATE_TOKENS)
    vectors = encode_token_ids(
        encoder, rows=rows, pad_id=tokenizer.pad_token_id, token_budget=_TOKEN_BUDGET
    )
    ends = np.cumsum([len(library[task]) for task in TASKS])
    return dict(enumerate(np.split(vectors, ends[:-1])))


def nearest_templates(
    vectors: Any, *, tasks: IntArray, template_vectors: Mapping[int, Any]
) -> IntArray:
    """Place of the nearest of its own task's templates for each row.

    Args:
        vectors: Mean-pooled embeddings of inputs, shape ``(num_rows, dim)``.
        tasks: Place of each row's task in ``Task``.
        template_vectors: From `template_vectors`.

    Source:
        Eq 10-11.
    """
    choices = np.zeros(len(vectors), dtype=np.int64)
    for task in np.unique(tasks):
        places = np.flatnonzero(tasks == task)
        scores = adaptability(vectors[places], template_vectors=template_vectors[int(task)])
        choices[places] = choose_instructions(scores)
    return choices


def _entropy(counts: Sequence[int] | Any) -> float:
    shares = np.asarray(counts) / np.sum(counts)
    return float(-(shares * np.log2(shares)).sum())
