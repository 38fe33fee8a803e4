"""Answers of an exported model, without Ray: reaction type, instruction, beam search, ranking."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from raycrp.choices import Device, Precision, Task
from raycrp.evaluate.answers import (
    Answer,
    Prediction,
    Rejection,
    check_input,
    describe_predictions,
    flag_answer,
    holds_product,
)
from raycrp.evaluate.calibration import Calibration
from raycrp.evaluate.model_folder import MODEL_FILE, MODEL_FORMAT, ModelFolder, find_model
from raycrp.evaluate.prompting import Plan, Prompter, Question, SearchSettings
from raycrp.evaluate.ranking import missing_answers, rank_answers
from raycrp.model.decode import Hypothesis, beam_search, score_answers
from raycrp.model.decode_precision import use_precision
from raycrp.model.encode import length_batches
from raycrp.model.states import PromptStates
from raycrp.model.t5 import load_backbone

__all__ = [
    "MODEL_FILE",
    "MODEL_FORMAT",
    "Answer",
    "Prediction",
    "Predictor",
    "SearchSettings",
    "describe_predictions",
    "load_predictor",
]


_KEPT_BATCHES = 16
"""Batches of prompts whose encoder states are in memory at once."""


class Predictor:
    """An exported model, loaded once.

    Args:
        folder: The exported ``model`` folder.
        device: Where the models run.
        num_beams: Beams of the search, for each spelling.
        num_reaction_types: The most probable reaction types whose prompts are decoded and ranked
            together; beams beyond the answers wanted are shared among them.
        num_spellings: Spellings of the input that vote; the first is the canonical one.
        round_trip_beams: Beams of the forward search of a round trip.
        precision: Number format of the search; ``auto`` is half precision on a GPU, else fp32.
        token_budget: Rows times longest row of one padded batch, in tokens.
        max_output_tokens: Longest answer, in tokens; that of training if None.

    Raises:
        ModelError: If the folder is no exported model, or of another format.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        device: Device = Device.AUTO,
        num_beams: int = 5,
        num_reaction_types: int = 1,
        num_spellings: int = 1,
        round_trip_beams: int = 1,
        precision: Precision = Precision.AUTO,
        token_budget: int = 8_192,
        max_output_tokens: int | None = None,
    ) -> None:
        self._folder = ModelFolder(folder)
        self._settings = SearchSettings(num_beams, num_reaction_types, num_spellings)
        self._round_trip_settings = SearchSettings(round_trip_beams)
        self._token_budget = token_budget
        self._max_output_tokens = max_output_tokens or self._folder.max_output_tokens
        self._model, self._tokenizer = load_backbone(self._folder.path, device=device)
        use_precision(self._model, precision)
        self._prompter = Prompter(
            self._folder,
            model=self._model,
            tokenizer=self._tokenizer,
            device=device,
            token_budget=token_budget,
        )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the model was trained for."""
        return self._folder.tasks

    def predict(
        self,
        inputs: Sequence[str | None],
        *,
        task: Task | str,
        top_k: int = 5,
        reaction_types: Sequence[int] | None = None,
        row_ids: Sequence[int] | None = None,
        round_trip: bool = False,
    ) -> list[Prediction]:
        """Answers to inputs; a bad one is rejected with its reason and the others are answered.

        Inputs that mean the same are answered once.

        Args:
            inputs: Molecules as SMILES, joined by dots; for reagents ``reactants>>product``.
            task: The task.
            top_k: Different answers wanted for each input.
            reaction_types: RT of each input, taken for certain; named by LLM-RT if None.
            row_ids: Numbers of the inputs for the control ``random``; their places if None.
            round_trip: Whether to ask the forward task, where the model has it, what comes of each
                answer to a retrosynthesis.

        Returns:
            One prediction an input, in their order.

        Raises:
            ModelError: If the model was not trained for the task.
            ValueError: If ``inputs`` is one text, which would pass for one input a character.
        """
        if isinstance(inputs, str):
            raise ValueError(f"inputs must be a list of texts, such as ['{inputs}']")
        task = self._folder.check_task(task)
        checked = [check_input(text, task=task) for text in inputs]
        questions = {
            place: self._prompter.question(
                text,
                task=task,
                reaction_type=None if reaction_types is None else reaction_types[place],
                row_id=place if row_ids is None else row_ids[place],
            )
            for place, text in enumerate(checked)
            if isinstance(text, str)
        }
        distinct = list(dict.fromkeys(questions.values()))
        found = self._answer(distinct, task=task, top_k=top_k, settings=self._settings)
        if round_trip and task is Task.RETROSYNTHESIS and Task.FORWARD in self.tasks:
            found = self._add_round_trips(distinct, found)
        answered = dict(zip(distinct, found, strict=True))
        return [
            Prediction(text or "", task, rejection=problem)
            if isinstance(problem, Rejection)
            else replace(answered[questions[place]], input=text or "")
            for place, (text, problem) in enumerate(zip(inputs, checked, strict=True))
        ]

    def round_trips(
        self, products: Sequence[str], *, answers: Sequence[Sequence[str]]
    ) -> list[tuple[bool, ...]]:
        """Whether the forward task's best answer to proposed precursors is the product again.

        Args:
            products: Inputs of the retrosynthesis task.
            answers: Precursors proposed for each; what is no molecule never passes, nor what holds
                the product already.

        Returns:
            For each product, whether each answer passes.
        """
        proposed = [[check_input(text, task=Task.FORWARD) for text in row] for row in answers]
        texts = [text for row in proposed for text in row if isinstance(text, str)]
        made = self._make_products(list(dict.fromkeys(texts)))
        wanted = [check_input(text, task=Task.RETROSYNTHESIS) for text in products]
        return [
            tuple(
                isinstance(text, str)
                and isinstance(product, str)
                and made[text] == product
                and not holds_product(text, product)
                for text in row
            )
            for product, row in zip(wanted, proposed, strict=True)
        ]

    def _make_products(self, precursors: Sequence[str]) -> dict[str, str]:
        questions = [
            self._prompter.question(text, task=Task.FORWARD, reaction_type=None, row_id=0)
            for text in precursors
        ]
        found = self._answer(
            questions, task=Task.FORWARD, top_k=1, settings=self._round_trip_settings
        )
        return {each.input: each.answers[0].smiles for each in found}

    def _answer(
        self, questions: Sequence[Question], *, task: Task, top_k: int, settings: SearchSettings
    ) -> list[Prediction]:
        num_beams = max(settings.num_beams, top_k)
        settings = replace(settings, num_beams=num_beams, num_wanted=top_k)
        plans = self._prompter.plan(questions, task=task, settings=settings)
        # Characters stand for tokens, which are fewer, so that few states are kept at once.
        sizes = [sum(map(len, plan.prompts)) for plan in plans]
        found: dict[int, Prediction] = {}
        for places in length_batches(sizes, token_budget=_KEPT_BATCHES * self._token_budget):
            block = self._answer_block([plans[i] for i in places], task=task, top_k=top_k)
            found.update(zip(places, block, strict=True))
        return [found[place] for place in range(len(plans))]

    def _answer_block(
        self, plans: Sequence[Plan], *, task: Task, top_k: int
    ) -> Iterator[Prediction]:
        """Search and scores from the same states: each distinct prompt is encoded once."""
        states = PromptStates(
            self._model,
            self._tokenizer,
            [prompt for plan in plans for prompt in plan.prompts],
            token_budget=self._token_budget,
        )
        found = self._decode(plans, states)
        scored = self._score_missing(plans, found, states)
        for plan, own, others in zip(plans, found, scored, strict=True):
            yield self._make_prediction(plan, found=own, scored=others, task=task, top_k=top_k)

    def _decode(self, plans: Sequence[Plan], states: PromptStates) -> list[list[list[Hypothesis]]]:
        """What each variant of each plan finds; nothing where it has no beam of its own."""
        beams = [variant.num_beams for plan in plans for variant in plan.variants]
        found = iter(
            beam_search(
                self._model,
                self._tokenizer,
                states,
                num_beams=beams,
                num_return=max(beams),
                max_new_tokens=self._max_output_tokens,
                token_budget=self._token_budget,
            )
        )
        return [[next(found) for _ in plan.variants] for plan in plans]

    def _score_missing(
        self,
        plans: Sequence[Plan],
        found: Sequence[Sequence[Sequence[Hypothesis]]],
        states: PromptStates,
    ) -> list[list[dict[tuple[int, ...], float]]]:
        """Scores, under each variant, of what others of the same spelling found."""
        missing = [
            missing_answers(plan.variants, found=own)
            for plan, own in zip(plans, found, strict=True)
        ]
        scores = iter(
            score_answers(
                self._model,
                self._tokenizer,
                states,
                answers=[ids for rows in missing for ids in rows],
                token_budget=self._token_budget,
            )
        )
        return [[dict(zip(ids, next(scores), strict=True)) for ids in rows] for rows in missing]

    def _make_prediction(
        self,
        plan: Plan,
        *,
        found: Sequence[Sequence[Hypothesis]],
        scored: Sequence[dict[tuple[int, ...], float]],
        task: Task,
        top_k: int,
    ) -> Prediction:
        ranked = rank_answers(plan.variants, found=found, scored=scored)
        calibration = self._folder.calibrations.get(task)
        answers = [flag_answer(each, task=task, input_text=plan.text) for each in ranked[:top_k]]
        if calibration is not None:
            answers = [replace(each, confidence=_confidence(each, calibration)) for each in answers]
        if len(plan.variants) == 1:
            raw = [(each.text, each.log_probability) for each in found[0]]
        else:
            raw = [(each.text, each.log_probability) for each in ranked]
        types = [each.reaction_type for each in plan.variants if each.spelling == 0]
        return Prediction(
            input=plan.text,
            task=task,
            answers=tuple(answers),
            raw_answers=tuple(text for text, _ in raw),
            raw_log_probabilities=tuple(float(score) for _, score in raw),
            reaction_type=types[0],
            reaction_type_probabilities=plan.probabilities,
            reaction_types_used=tuple(each for each in types if each is not None),
            template_id=plan.template_id,
        )

    def _add_round_trips(
        self, questions: Sequence[Question], found: Sequence[Prediction]
    ) -> list[Prediction]:
        answers = [[each.smiles for each in prediction.answers] for prediction in found]
        passed = self.round_trips([question.text for question in questions], answers=answers)
        return [
            replace(
                prediction,
                answers=tuple(
                    replace(answer, passes_round_trip=passes)
                    for answer, passes in zip(prediction.answers, row, strict=True)
                ),
            )
            for prediction, row in zip(found, passed, strict=True)
        ]


def _confidence(answer: Answer, calibration: Calibration) -> float:
    return calibration.confidence(answer.log_probability) if answer.is_valid else 0.0


def load_predictor(
    path: Path | str,
    *,
    device: Device | str = Device.AUTO,
    num_beams: int = 5,
    num_reaction_types: int = 1,
    num_spellings: int = 1,
    max_output_tokens: int | None = None,
) -> Predictor:
    """The predictor of a run or of an exported model.

    Args:
        path: A run folder with a trained model, a path or a URI, or the exported ``model`` folder
            itself.
        device: Where the models run.
        num_beams: Beams of the search.
        num_reaction_types: Reaction types that are decoded and ranked together.
        num_spellings: Spellings of the input that vote.
        max_output_tokens: Longest answer, in tokens; that of training if None.

    Raises:
        ModelError: If neither is there.
    """
    return Predictor(
        find_model(path),
        device=Device(device),
        num_beams=num_beams,
        num_reaction_types=num_reaction_types,
        num_spellings=num_spellings,
        max_output_tokens=max_output_tokens,
    )
