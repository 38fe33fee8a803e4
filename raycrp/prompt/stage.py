"""The prompt stage: LLM-CRP before training, and the enhanced prompt of every row (Eq 10-12)."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raycrp.choices import Device, Fusion, InstructionChoice, Task, TrainReactionType
from raycrp.config import Backbone, Config, PromptConfig
from raycrp.errors import RunError
from raycrp.prompt.select import (
    adaptability,
    choose_instructions,
    fixed_instructions,
    random_instructions,
)
from raycrp.prompt.templates import (
    Template,
    bare_template,
    compose_prompt,
    load_templates,
    reaction_type_name,
)
from raycrp.ray_data import map_shards
from raycrp.run import RunFolder
from raycrp.schemas import PROMPTS, RtSource, Split

if TYPE_CHECKING:
    from raycrp.model.encode import TextEncoder

LLM_CRP_DIR = "prompt/llm_crp"
ROWS_DIR = "prompt/rows"
ELICIT_SUMMARY = "elicit/summary.json"
_TRAIN_TYPES = {
    TrainReactionType.CLUSTER: "elicit/reaction_types",
    TrainReactionType.CROSS_FITTED: "elicit/cross_fitted",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptSettings:
    """What decides a row's prompt.

    Args:
        instruction: How its instruction is chosen.
        use_reaction_type: Whether the prompt names the reaction type.
        train_reaction_type: Whose reaction types training rows carry.
        seed: Seed of the control ``random``.
        device: Where the encoder runs.
        token_budget: Rows times longest row of one padded batch of the encoder, in tokens.
        max_tokens: Longest text that the encoder reads whole, in tokens.
        fusion: How instruction, reaction type and input come together.
    """

    instruction: InstructionChoice
    use_reaction_type: bool
    train_reaction_type: TrainReactionType
    seed: int
    device: Device
    token_budget: int
    max_tokens: int
    fusion: Fusion = Fusion.TEXT


def run_prompt(config: Config, run: RunFolder) -> dict[str, Any]:
    """Make LLM-CRP as it is before training, and write the prompts of all splits.

    Args:
        config: The resolved configuration.
        run: The run folder, with the data, elicit and annotate stages done.

    Returns:
        Rows in and out, rows by split, and how often each template was chosen.
    """
    started = time.monotonic()
    tasks = config.model_tasks
    num_types = read_num_types(run, tasks=tasks)
    _save_llm_crp(
        run,
        backbone=config.model.llm_crp,
        num_types=num_types,
        seed=config.model_seed,
        fusion=config.prompt.fusion,
    )
    settings = PromptSettings(
        instruction=config.prompt.instruction,
        use_reaction_type=config.prompt.use_reaction_type,
        train_reaction_type=config.prompt.train_reaction_type,
        seed=config.model_seed,
        device=config.run.device,
        token_budget=config.embed.token_budget,
        max_tokens=config.embed.max_tokens,
        fusion=config.prompt.fusion,
    )
    source = "annotate" if tasks == config.data.tasks else _select_tasks(run, tasks=tasks)
    rows = _write_prompts(run, source=source, settings=settings, section=config.prompt)
    num_rows = sum(rows.values())
    rows_in = sum(run.num_rows(f"annotate/{split}") for split in Split)
    summary = {
        "rows_in": rows_in,
        "rows_out": num_rows,
        "rejected": 0,
        "not_sampled": rows_in - num_rows,
        "seconds": time.monotonic() - started,
        "rows": rows,
        "template_counts": _count_templates(run),
    }
    logger.info("prompt: %d rows, %.1f s", num_rows, summary["seconds"])
    return summary


def read_num_types(run: RunFolder, *, tasks: Sequence[Task]) -> dict[Task, int]:
    """Number of reaction types that elicitation settled on, by task.

    Args:
        run: The run folder, with the elicit stage done.
        tasks: Tasks of the run.
    """
    summary = run.read_json(ELICIT_SUMMARY)
    return {task: int(summary[task.value]["num_clusters"]) for task in tasks}


class PromptWriter:
    """Table function from annotated rows of one split to prompts; built once in each actor.

    Args:
        run: The run folder.
        settings: What decides a row's prompt.
    """

    def __init__(self, run: RunFolder, settings: PromptSettings) -> None:
        self._settings = settings
        self._train_types = _read_train_types(run, settings.train_reaction_type)
        self._part_end = _part_end(run) if settings.fusion is Fusion.HIDDEN else ""
        self._encoder: TextEncoder | None = None
        self._template_vectors: dict[Task, np.ndarray] = {}
        if settings.instruction is InstructionChoice.ADAPTIVE:
            self._encoder = _load_encoder(run, settings)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Prompts of these rows, in their order."""
        row_ids = rows["row_id"].to_pylist()
        tasks = [Task(name) for name in rows["task"].to_pylist()]
        inputs = rows["input"].to_pylist()
        (split,) = rows["split"].unique().to_pylist()
        types, source = self._reaction_types(
            row_ids, rows["reaction_type"].to_pylist(), split=Split(split)
        )
        templates = self._templates(row_ids, tasks, inputs)
        prompts = [
            compose_prompt(
                template.text,
                reaction_type_name=None if rt is None else reaction_type_name(task, rt),
                input_text=text,
                part_end=self._part_end,
            )
            for template, task, rt, text in zip(templates, tasks, types, inputs, strict=True)
        ]
        made = {
            "template_id": [template.id for template in templates],
            "reaction_type": types,
            "rt_source": [source.value] * len(row_ids),
            "prompt": prompts,
        }
        columns = {
            name: pa.array(made[name], PROMPTS.field(name).type) if name in made else rows[name]
            for name in PROMPTS.names
        }
        return pa.table(columns)

    def _reaction_types(
        self, row_ids: Sequence[int], predicted: Sequence[int], *, split: Split
    ) -> tuple[Sequence[int | None], RtSource]:
        if not self._settings.use_reaction_type:
            return [None] * len(row_ids), RtSource.NONE
        # Clusters saw the output: they may name the types of training rows alone.
        if self._train_types is None or split is not Split.TRAIN:
            return predicted, RtSource.PREDICTED
        kind = self._settings.train_reaction_type
        missing = [row_id for row_id in row_ids if row_id not in self._train_types]
        if missing:
            raise RunError(
                f"{_TRAIN_TYPES[kind]} lacks {len(missing)} training rows, first row_id "
                f"{missing[0]}; run the elicit stage again"
            )
        return [self._train_types[row_id] for row_id in row_ids], RtSource(kind)

    def _templates(
        self, row_ids: Sequence[int], tasks: Sequence[Task], inputs: Sequence[str]
    ) -> list[Template]:
        if self._settings.instruction is InstructionChoice.NONE:
            return [bare_template(task) for task in tasks]
        choices = self._choices(row_ids, tasks, inputs)
        return [load_templates()[task][i] for task, i in zip(tasks, choices, strict=True)]

    def _choices(
        self, row_ids: Sequence[int], tasks: Sequence[Task], inputs: Sequence[str]
    ) -> np.ndarray:
        choices = np.zeros(len(row_ids), dtype=np.int64)
        for task in sorted(set(tasks)):
            places = [i for i, other in enumerate(tasks) if other is task]
            choices[places] = self._choose(
                task, [row_ids[i] for i in places], [inputs[i] for i in places]
            )
        return choices

    def _choose(self, task: Task, row_ids: Sequence[int], inputs: Sequence[str]) -> np.ndarray:
        if self._settings.instruction is InstructionChoice.FIXED:
            return fixed_instructions(len(row_ids))
        if self._encoder is None:
            num_templates = len(load_templates()[task])
            return random_instructions(
                row_ids, num_templates=num_templates, seed=self._settings.seed
            )
        if task not in self._template_vectors:
            texts = [template.text for template in load_templates()[task]]
            self._template_vectors[task] = self._encoder.encode(texts)
        vectors = self._encoder.encode(inputs)
        scores = adaptability(vectors, template_vectors=self._template_vectors[task])
        return choose_instructions(scores)


def _save_llm_crp(
    run: RunFolder,
    *,
    backbone: Backbone,
    num_types: Mapping[Task, int],
    seed: int,
    fusion: Fusion,
) -> None:
    from raycrp.model.fusion import mark_fusion
    from raycrp.model.t5 import save_backbone

    if run.exists(LLM_CRP_DIR):
        return
    names = [
        reaction_type_name(task, number)
        for task, count in num_types.items()
        for number in range(count)
    ]
    with run.new_local_dir(LLM_CRP_DIR) as folder:
        save_backbone(
            backbone,
            tokenizer_dir=run.local_dir("data/tokenizer"),
            target=folder,
            seed=seed,
            new_tokens=names,
            starts_copying=True,
        )
        mark_fusion(folder, fusion)


def _select_tasks(run: RunFolder, *, tasks: Sequence[Task]) -> str:
    """Annotated rows of some tasks alone, file by file, in a folder of their own."""
    names = pa.array([task.value for task in tasks])
    for split in Split:
        for name in run.list_names(f"annotate/{split}"):
            target = f"{ROWS_DIR}/{split}/{name}"
            if not run.exists(target):
                table = run.read_table(f"annotate/{split}/{name}")
                run.write_table(target, table.filter(pc.is_in(table["task"], names)))
    return ROWS_DIR


def _write_prompts(
    run: RunFolder, *, source: str, settings: PromptSettings, section: PromptConfig
) -> dict[str, int]:
    num_rows = map_shards(
        run,
        tables={f"{source}/{split}": f"prompt/{split}" for split in Split},
        function=PromptWriter,
        arguments={"run": run, "settings": settings},
        schema=PROMPTS,
        rows_per_shard=section.rows_per_shard,
        num_actors=section.num_actors,
        gpus_per_actor=section.gpus_per_actor,
    )
    return {split.value: num_rows[f"{source}/{split}"] for split in Split}


def _read_train_types(run: RunFolder, kind: TrainReactionType) -> dict[int, int] | None:
    """Reaction type by row id of D_train; None where LLM-RT's own are asked for."""
    folder = _TRAIN_TYPES.get(kind)
    if folder is None:
        return None
    table = run.read_table(folder, columns=["row_id", "reaction_type"])
    return dict(zip(table["row_id"].to_pylist(), table["reaction_type"].to_pylist(), strict=True))


def _part_end(run: RunFolder) -> str:
    from raycrp.model.tokenizers import load_tokenizer_dir

    return str(load_tokenizer_dir(run.local_dir(LLM_CRP_DIR)).eos_token)


def _load_encoder(run: RunFolder, settings: PromptSettings) -> "TextEncoder":
    from raycrp.model.encode import TextEncoder

    return TextEncoder(
        run.local_dir(LLM_CRP_DIR),
        device=settings.device,
        token_budget=settings.token_budget,
        max_tokens=settings.max_tokens,
    )


def _count_templates(run: RunFolder) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for split in Split:
        if run.list_names(f"prompt/{split}"):
            table = run.read_table(f"prompt/{split}", columns=["template_id"])
            counts.update(table["template_id"].to_pylist())
    return dict(sorted(counts.items()))
