import numpy as np
import pyarrow as pa
import pytest

from raycrp.choices import Spelling, Task
from raycrp.errors import TrainError
from raycrp.model.tokenizers import add_tokens, build_tokenizer
from raycrp.prompt.templates import compose_prompt, load_templates, prompt_words, reaction_type_name
from raycrp.run import RunFolder
from raycrp.schemas import PROMPTS, Split
from raycrp.train.batches import Collator
from raycrp.train.setup import special_ids
from raycrp.train.token_store import read_tokens
from raycrp.train.tokens import (
    TASKS,
    TOKENS_DIR,
    PrefixTable,
    SpellingSettings,
    Texts,
    TokenWriter,
)

INPUTS = {
    Task.FORWARD: "CC(=O)Cl.C/C=C\\CN",
    Task.RETROSYNTHESIS: "C[C@@H](N)C(=O)O",
    Task.REAGENT: "CCBr.[Na+].[OH-]>>CCO",
}


def prompt_row(row_id, *, task, place=0, reaction_type=2, split=Split.TRAIN, part_end=""):
    template = load_templates()[task][place]
    name = None if reaction_type is None else reaction_type_name(task, reaction_type)
    return {
        "row_id": row_id,
        "reaction_key": "k",
        "task": task.value,
        "split": split.value,
        "template_id": template.id,
        "reaction_type": reaction_type,
        "rt_source": "none" if reaction_type is None else "cluster",
        "prompt": compose_prompt(
            template.text, reaction_type_name=name, input_text=INPUTS[task], part_end=part_end
        ),
        "input": INPUTS[task],
        "output": "CCO",
        "mapped_reaction": None,
    }


def own_tokenizer():
    tokenizer = build_tokenizer(INPUTS.values(), words=prompt_words(TASKS))
    add_tokens(tokenizer, [reaction_type_name(task, n) for task in TASKS for n in range(4)])
    return tokenizer


def sentencepiece_tokenizer():
    """Pieces with the word's blank in front, as T5's published tokenizer has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    texts = [*prompt_words(TASKS), *INPUTS.values()]
    characters = sorted({c for text in texts for c in text if c != " "} | {"▁"})
    words = sorted({f"▁{word}" for text in texts for word in text.split(" ")[:3]})
    vocabulary = ["<pad>", "</s>", "<unk>", *words, *characters]
    pieces = [(token, -1.0 - 0.001 * i) for i, token in enumerate(vocabulary)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    add_tokens(tokenizer, [reaction_type_name(task, n) for task in TASKS for n in range(4)])
    return tokenizer


@pytest.fixture(params=[own_tokenizer, sentencepiece_tokenizer])
def run(request, tmp_path):
    run = RunFolder(str(tmp_path), "run")
    with run.new_local_dir("prompt/llm_crp") as folder:
        request.param().save_pretrained(folder)
    return run


CANONICAL = SpellingSettings(Spelling.CANONICAL, 1, 0)


def write(run, rows, settings=CANONICAL):
    table = TokenWriter(run, settings)(pa.Table.from_pylist(rows, schema=PROMPTS))
    run.write_table(f"{TOKENS_DIR}/shard-000000.parquet", table)


@pytest.mark.parametrize("part_end", ["", "</s>"])
def test_pieces_put_together_are_the_tokens_of_the_whole_prompt(run, part_end):
    rows = [
        prompt_row(i, task=task, place=i, reaction_type=rt, part_end=part_end)
        for i, (task, rt) in enumerate((task, rt) for task in TASKS for rt in (None, 0, 3))
    ]
    write(run, rows)
    table = read_tokens(run, Split.TRAIN)
    tokenizer = TokenWriter(run, CANONICAL)._tokenizer
    collate = Collator(
        table,
        prefixes=PrefixTable(tokenizer, part_end=part_end),
        special=special_ids(tokenizer, start=0),
    )
    batch = collate(np.arange(table.num_rows), templates=table.templates)
    for row, ids, mask in zip(rows, batch.input_ids, batch.attention_mask, strict=True):
        assert ids[mask.bool()].tolist() == tokenizer(row["prompt"])["input_ids"]
    expected = [tokenizer(row["input"])["input_ids"] for row in rows]
    assert collate.plain_inputs(np.arange(table.num_rows)) == expected


def test_table_is_ordered_and_holds_one_split(run):
    write(
        run,
        [
            prompt_row(8, task=Task.REAGENT, reaction_type=None),
            prompt_row(3, task=Task.FORWARD, place=11),
            prompt_row(5, task=Task.FORWARD, split=Split.VALIDATION),
        ],
    )
    table = read_tokens(run, Split.TRAIN)
    assert table.row_ids.tolist() == [3, 8]
    assert [TASKS[i] for i in table.tasks] == [Task.FORWARD, Task.REAGENT]
    assert table.templates.tolist() == [11, 0]
    assert table.reaction_types.tolist() == [2, -1]
    tokenizer = TokenWriter(run, CANONICAL)._tokenizer
    assert table.targets.ids(1).tolist() == tokenizer("CCO")["input_ids"]
    assert read_tokens(run, Split.VALIDATION).row_ids.tolist() == [5]


def test_a_split_without_rows_is_refused(run):
    write(run, [prompt_row(0, task=Task.FORWARD)])
    with pytest.raises(TrainError, match="the validation split has no rows"):
        read_tokens(run, Split.VALIDATION)


MAPPED = "[CH3:1][CH2:2][OH:3]>>[CH3:1][CH:2]=[O:3]"


def test_each_epoch_takes_the_next_spelling(run):
    row = prompt_row(4, task=Task.FORWARD)
    row |= {"input": "CCO", "output": "CC=O", "mapped_reaction": MAPPED}
    held_out = row | {"row_id": 5, "split": "validation"}
    write(run, [row, held_out], SpellingSettings(Spelling.ALIGNED, 8, seed=1))
    table = read_tokens(run, Split.TRAIN)
    tokenizer = TokenWriter(run, CANONICAL)._tokenizer

    def text(ids):
        return tokenizer.decode(ids).replace("▁", "").replace(" ", "")

    pairs = {
        (
            text(table.inputs.ids(0, spelling=epoch)),
            text(table.targets.ids(0, spelling=epoch)[:-1]),
        )
        for epoch in range(8)
    }
    assert pairs == {("CCO", "CC=O"), ("OCC", "O=CC"), ("C(C)O", "C(C)=O")}
    assert table.inputs.ids(0, spelling=8).tolist() == table.inputs.ids(0).tolist()
    assert read_tokens(run, Split.VALIDATION).inputs.num_spellings == 1
    assert table.num_aligned == 1


def test_texts_are_cut_to_their_rows_limits():
    tokens = np.array([1, 2, 3, 9, 4, 9, 5, 6, 9, 7, 8, 9], dtype=np.int32)
    texts = Texts(tokens, np.array([[0, 4], [6, 9]]), np.array([[4, 2], [3, 3]]))
    limits = np.array([3, 2])
    inputs, targets = (texts.cut(limits, keeps_last=keeps) for keeps in (False, True))

    def read(cut):
        return [cut.ids(row, spelling=n).tolist() for row in (0, 1) for n in (0, 1)]

    assert read(inputs) == [[1, 2, 3], [4, 9], [5, 6], [7, 8]]
    assert read(targets) == [[1, 2, 9], [4, 9], [5, 9], [7, 9]]
    assert inputs.tokens is targets.tokens is tokens
    assert tokens.tolist() == [1, 2, 3, 9, 4, 9, 5, 6, 9, 7, 8, 9]
