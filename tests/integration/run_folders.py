"""Small run folders for tests, filled by hand as the stages before would fill them."""

from pathlib import Path

import pyarrow as pa
from minute_t5 import minute_t5

from raycrp.choices import Device, Preset, Spelling, Task
from raycrp.config import Backbone, Config
from raycrp.model.fusion import mark_fusion
from raycrp.model.t5 import save_backbone
from raycrp.model.tokenizers import prepare_tokenizer
from raycrp.prompt.stage import PromptSettings, PromptWriter
from raycrp.prompt.templates import prompt_words, reaction_type_name
from raycrp.run import RunFolder
from raycrp.schemas import ANNOTATIONS, PROMPTS, REACTION_TYPES, Split
from raycrp.train.tokens import TOKENS_DIR, SpellingSettings, TokenWriter

NUM_TYPES = 3


def make_config(folder, **sections):
    values = {"run": {"name": "test", "storage": str(folder)}, **sections}
    return Config.model_validate(values)


def annotated_rows(*, num_reactions, split):
    """Amides from acids and amines, three task rows each."""
    first = {Split.TRAIN: 0, Split.VALIDATION: 100_000, Split.TEST: 200_000}[split]
    rows = []
    for number in range(num_reactions):
        acid = "C" * (1 + number % 5) + "C(=O)O"
        amine = "N" + "C" * (1 + number // 5 % 7) + ("O" if number % 2 else "")
        product = acid[:-1] + amine
        texts = {
            Task.FORWARD: (f"{acid}.{amine}.CCN=C=N", product),
            Task.RETROSYNTHESIS: (product, f"{acid}.{amine}"),
            Task.REAGENT: (f"{acid}.{amine}>>{product}", "CCN=C=N"),
        }
        for task, (source, target) in texts.items():
            row_id = first + len(rows)
            rows.append(
                {
                    "row_id": row_id,
                    "source_id": str(row_id),
                    "reaction_key": f"{split}-{number}",
                    "task": task.value,
                    "split": split.value,
                    "rt_split": "rt_train" if split is Split.TRAIN else None,
                    "input": source,
                    "output": target,
                    "mapped_reaction": None,
                    "reaction_type": number % NUM_TYPES,
                    "probabilities": [1.0, 0.0, 0.0],
                }
            )
    return pa.Table.from_pylist(rows, schema=ANNOTATIONS)


def write_annotated_run(config, *, num_train, num_validation, num_test=4):
    """A run folder as the annotate stage leaves it; its cluster labels are the annotations + 1."""
    run = RunFolder(config.run.storage, config.run.name)
    texts = []
    counts = {Split.TRAIN: num_train, Split.VALIDATION: num_validation, Split.TEST: num_test}
    for split, count in counts.items():
        table = annotated_rows(num_reactions=count, split=split)
        run.write_table(f"annotate/{split}/shard-000000.parquet", table)
        texts += table["input"].to_pylist() + table["output"].to_pylist()
        if split is Split.TRAIN:
            write_clusters(run, table)
    run.write_json(
        "elicit/summary.json", {task.value: {"num_clusters": NUM_TYPES} for task in Task}
    )
    for task in Task:
        run.write_json(f"elicit/labelers/{task}/labeler.json", {})
    prepared = prepare_tokenizer(
        Backbone(preset=Preset.TINY), smiles=texts, words=prompt_words(list(Task))
    )
    with run.new_local_dir("data/tokenizer") as folder:
        prepared.tokenizer.save_pretrained(folder)
    return run


def write_prompted_run(config, *, num_train, num_validation):
    """A run folder as the prompt stage leaves it, with the token table, around a minute T5."""
    run = write_annotated_run(config, num_train=num_train, num_validation=num_validation)
    names = [reaction_type_name(task, n) for task in Task for n in range(NUM_TYPES)]
    write_minute_t5(Path(run.path("minute_t5")))
    with run.new_local_dir("prompt/llm_crp") as folder:
        save_backbone(
            Backbone(name_or_path=run.path("minute_t5")),
            tokenizer_dir=run.local_dir("data/tokenizer"),
            target=folder,
            seed=0,
            new_tokens=names,
        )
        mark_fusion(folder, config.prompt.fusion)
    settings = PromptSettings(
        instruction=config.prompt.instruction,
        use_reaction_type=True,
        train_reaction_type=config.prompt.train_reaction_type,
        seed=0,
        device=Device.CPU,
        token_budget=4_096,
        max_tokens=256,
        fusion=config.prompt.fusion,
    )
    for split in Split:
        rows = PromptWriter(run, settings)(run.read_table(f"annotate/{split}"))
        run.write_table(f"prompt/{split}/shard-000000.parquet", rows.cast(PROMPTS))
        tokens = TokenWriter(run, SpellingSettings(Spelling.CANONICAL, 1, 0))(rows)
        run.write_table(f"{TOKENS_DIR}/shard-{split}.parquet", tokens)
    return run


def write_minute_t5(folder):
    minute_t5(vocab_size=8, d_model=32, d_ff=64, num_heads=4).save_pretrained(folder)


def write_clusters(run, table):
    for task in Task:
        rows = [row for row in table.to_pylist() if row["task"] == task]
        values = [
            {
                "row_id": row["row_id"],
                "task": task.value,
                "reaction_type": (row["reaction_type"] + 1) % NUM_TYPES,
            }
            for row in rows
        ]
        run.write_table(
            f"elicit/reaction_types/{task}.parquet",
            pa.Table.from_pylist(values, schema=REACTION_TYPES),
        )
