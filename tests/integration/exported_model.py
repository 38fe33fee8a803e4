"""A model folder as the train stage exports it, with weights that learned nothing."""

import json

import numpy as np

from raycrp.choices import Device, Preset, Task
from raycrp.config import Backbone
from raycrp.model.encode import TextEncoder
from raycrp.model.head import fit_head
from raycrp.model.labeler import HeadLabeler
from raycrp.model.t5 import build_tokenizer, save_backbone
from raycrp.prompt.templates import prompt_words, reaction_type_name, templates_text

REACTIONS = [("CCO", "CC=O"), ("CCN", "CC#N"), ("CCCO", "CCC=O"), ("c1ccccc1Br", "c1ccccc1O")]
NUM_TYPES = 3


def write_model(folder):
    """Write the folder.

    Args:
        folder: Where the model goes; its tokenizer stays beside it.
    """
    texts = [text for pair in REACTIONS for text in pair]
    tokenizer_dir = folder.parent / "tokenizer"
    build_tokenizer(texts, words=prompt_words(tuple(Task))).save_pretrained(tokenizer_dir)
    names = [reaction_type_name(task, i) for task in Task for i in range(NUM_TYPES)]
    backbone = Backbone(preset=Preset.TINY)
    save_backbone(backbone, tokenizer_dir=tokenizer_dir, target=folder, seed=0, new_tokens=names)
    encoder = TextEncoder(folder, device=Device.CPU, token_budget=4_096, max_tokens=128)
    vectors = encoder.encode(texts)
    head = fit_head(
        vectors,
        np.arange(len(texts)) % NUM_TYPES,
        num_types=NUM_TYPES,
        valid_vectors=vectors,
        valid_labels=np.arange(len(texts)) % NUM_TYPES,
        seed=0,
        max_epochs=2,
    )
    for task in Task:
        HeadLabeler(encoder, head=head).save(folder / "llm_rt" / task.value)
    card = {
        "format": 1,
        "tasks": [task.value for task in Task],
        "use_reaction_type": True,
        "instruction": "adaptive",
        "num_types": {task.value: NUM_TYPES for task in Task},
    }
    (folder / "raycrp.json").write_text(json.dumps(card))
    (folder / "templates.yaml").write_text(templates_text())
    return folder
