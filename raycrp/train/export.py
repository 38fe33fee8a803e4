"""The exported predictor: one folder with all that predictions need, and its model card."""

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from raycrp.choices import Fusion, InstructionChoice, SelectBy, Task
from raycrp.config import Config
from raycrp.model.tokenizers import load_tokenizer_dir
from raycrp.prompt.stage import read_num_types
from raycrp.prompt.templates import (
    TEMPLATES_FILE,
    Template,
    bare_template,
    compose_prompt,
    load_templates,
    reaction_type_name,
    templates_text,
)
from raycrp.run import SUCCESS, RunFolder
from raycrp.train.worker import BEST_DIR

MODEL_DIR = "model"
MODEL_FILE = "raycrp.json"
MODEL_FORMAT = 1
CARD_FILE = "README.md"
_LABELERS_DIR = "elicit/labelers"
_EXAMPLE_INPUTS = {
    Task.FORWARD: "CC(=O)Cl.CCN",
    Task.RETROSYNTHESIS: "CCNC(C)=O",
    Task.REAGENT: "CC(=O)Cl.CCN>>CCNC(C)=O",
}


def export_model(config: Config, run: RunFolder, *, result: Mapping[str, Any]) -> None:
    """Write the folder ``model``: the best weights, tokenizer, templates, LLM-RTs and card.

    Args:
        config: The resolved configuration.
        run: The run folder, with training done.
        result: How training ended.
    """
    with run.new_local_dir(MODEL_DIR) as folder:
        shutil.copytree(run.local_dir(BEST_DIR), folder, dirs_exist_ok=True)
        (folder / TEMPLATES_FILE).write_text(templates_text(), encoding="utf-8")
        if config.prompt.use_reaction_type:
            for task in config.model_tasks:
                source = run.local_dir(f"{_LABELERS_DIR}/{task}")
                shutil.copytree(source, folder / "llm_rt" / task)
        description = _describe(config, run, result=result)
        (folder / MODEL_FILE).write_text(json.dumps(description, indent=2) + "\n")
    write_model_card(run)


def write_model_card(
    run: RunFolder, *, scores: Mapping[str, Mapping[str, float]] | None = None
) -> None:
    """Write the exported model's README, anew once there are test scores.

    Args:
        run: The run folder, with the model exported.
        scores: Test scores by task and metric; none yet if None.
    """
    description = run.read_json(f"{MODEL_DIR}/{MODEL_FILE}")
    sections = [
        _front_matter(description),
        _introduction(description),
        _prompts(description),
        _training(description),
        _test_scores(scores),
        _limits(),
    ]
    run.write_bytes(f"{MODEL_DIR}/{CARD_FILE}", "\n".join(sections).encode())


def _describe(config: Config, run: RunFolder, *, result: Mapping[str, Any]) -> dict[str, Any]:
    prompt, train = config.prompt, config.train
    num_types = read_num_types(run, tasks=config.model_tasks) if prompt.use_reaction_type else {}
    return {
        "format": MODEL_FORMAT,
        "tasks": [task.value for task in config.model_tasks],
        "use_reaction_type": prompt.use_reaction_type,
        "instruction": prompt.instruction.value,
        "fusion": prompt.fusion.value,
        "part_end": _part_end(run, prompt.fusion),
        "train_reaction_type": prompt.train_reaction_type.value,
        "num_types": {task.value: number for task, number in num_types.items()},
        "spelling": train.spelling.value,
        "backbone": config.model.llm_crp.preset or config.model.llm_crp.name_or_path,
        "seed": config.model_seed,
        "data_source": config.data.source.value,
        "data_digest": _data_digest(run),
        "max_input_tokens": train.max_input_tokens,
        "max_output_tokens": train.max_output_tokens,
        "training": {
            **result,
            "batch_size": train.batch_size,
            "peak_rate": train.learning_rate,
            "select_by": train.select_by.value,
        },
    }


def _part_end(run: RunFolder, fusion: Fusion) -> str:
    if fusion is Fusion.TEXT:
        return ""
    return str(load_tokenizer_dir(run.local_dir(BEST_DIR)).eos_token)


def _data_digest(run: RunFolder) -> str | None:
    path = f"data/{SUCCESS}"
    return str(run.read_json(path)["digest"]) if run.exists(path) else None


def _front_matter(description: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text2text-generation",
            "tags: [chemistry, reaction-prediction, smiles, raycrp]",
            "---",
            "",
            f"# Reaction prediction: {', '.join(description['tasks'])}",
            "",
        ]
    )


def _introduction(description: Mapping[str, Any]) -> str:
    result = description["training"]
    return (
        f"A T5 ({description['backbone']}, {result['num_parameters']:,} parameters) trained by "
        f"raycrp {_prompt_kind(description)}. It reads and writes canonical SMILES.\n\n"
        "```\n"
        f"raycrp predict . --task {description['tasks'][0]} "
        f"'{_EXAMPLE_INPUTS[Task(description['tasks'][0])]}'\n"
        "```\n\n"
        f"{_by_transformers(description)}\n"
    )


def _by_transformers(description: Mapping[str, Any]) -> str:
    if description["fusion"] == Fusion.HIDDEN:
        return (
            "It encodes the parts of a prompt apart and joins their vectors, which plain "
            "transformers does not: load it with `raycrp.load`, or with "
            "`raycrp.model.t5.load_backbone`."
        )
    return (
        "`AutoModelForSeq2SeqLM.from_pretrained` and `AutoTokenizer.from_pretrained` load it too; "
        "the prompt is then yours to write, as below."
    )


def _prompt_kind(description: Mapping[str, Any]) -> str:
    types = "with" if description["use_reaction_type"] else "without"
    choice = description["instruction"]
    instructions = (
        "no instructions" if choice == InstructionChoice.NONE else f"{choice} instructions"
    )
    return f"{types} elicited reaction types and with {instructions}"


def _prompts(description: Mapping[str, Any]) -> str:
    rows = [["task", "reaction types", "prompt, for example"]]
    for name in description["tasks"]:
        task = Task(name)
        number = description["num_types"].get(name)
        prompt = compose_prompt(
            _example_template(task, instruction=description["instruction"]).text,
            reaction_type_name=None if number is None else reaction_type_name(task, 0),
            input_text=_EXAMPLE_INPUTS[task],
            part_end=description["part_end"],
        )
        types = "-" if number is None else f"{number}, named by `llm_rt/{name}` from the input"
        rows.append([name, types, f"`{prompt}`"])
    return (
        "## Prompts\n\n"
        f"Instruction (`templates.yaml`, chosen: {description['instruction']}), reaction type "
        f"(training rows: {description['train_reaction_type']}), input.\n\n{_table(rows)}\n"
    )


def _example_template(task: Task, *, instruction: str) -> Template:
    if instruction == InstructionChoice.NONE:
        return bare_template(task)
    return load_templates()[task][0]


def _training(description: Mapping[str, Any]) -> str:
    result = description["training"]
    rows = [
        ["", ""],
        ["data", f"{description['data_source']}, digest `{description['data_digest']}`"],
        [
            "training rows",
            f"{result['num_rows']:,} ({result['num_too_long']:,} too long left out, "
            f"{result.get('num_cut', 0):,} cut)",
        ],
        ["rows an epoch", _shares(result.get("rows_per_epoch", {}))],
        ["validation rows", f"{result['num_validation_rows']:,}"],
        ["steps", f"{result['step']:,} of {result['num_steps']:,} ({result['stop_reason']})"],
        ["batch, peak step size", f"{result['batch_size']}, {result['peak_rate']:g}"],
        ["seed", str(description["seed"])],
        [
            "validation loss",
            f"{result['best_loss']:.4f} nats per token, step {result['best_step']}",
        ],
        *_validation_exact(result),
    ]
    return f"## Training\n\n{_table(rows)}\n"


def _shares(rows_per_epoch: Mapping[str, int]) -> str:
    return ", ".join(f"{task} {number:,}" for task, number in rows_per_epoch.items()) or "-"


def _validation_exact(result: Mapping[str, Any]) -> list[list[str]]:
    exact = result.get("best_exact")
    if exact is None:
        return []
    rule = " (chosen by it)" if result.get("select_by") == SelectBy.EXACT else ""
    return [["validation exact match", f"{exact:.3f}, step {result['best_step']}{rule}"]]


def _test_scores(scores: Mapping[str, Mapping[str, float]] | None) -> str:
    if not scores:
        return "## Test scores\n\nNot evaluated yet.\n"
    metrics = list(dict.fromkeys(metric for values in scores.values() for metric in values))
    rows = [["task", *metrics]]
    for task, values in scores.items():
        cells = [f"{values[metric]:.3f}" if metric in values else "-" for metric in metrics]
        rows.append([task, *cells])
    return f"## Test scores\n\n{_table(rows)}\n"


def _limits() -> str:
    return (
        "## Limits\n\nAnswers are guesses of a statistical model: check them before any use in a "
        "laboratory. Reactions unlike the training data are answered with no less confidence.\n"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)
