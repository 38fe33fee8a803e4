"""The prompt by which LLM-RT, as a T5, is asked for a reaction type."""

from raycrp.choices import Task

ANNOTATION_PROMPT = (
    "This is the {task} reaction prediction task, where the goal is to determine the type of the "
    "chemical reaction from the given compounds, from 0 to {last}. Input: {input}"
)
"""Names the labels that exist, 0 to N-1."""


def annotation_prompt(input_text: str, *, task: Task, num_types: int) -> str:
    """The question for the reaction type of one row.

    Args:
        input_text: The row's input; never its output.
        task: The row's task.
        num_types: The N of the paper.

    Source: Section 2, step 5 of Algorithm 1.
    """
    return ANNOTATION_PROMPT.format(task=task.value, last=num_types - 1, input=input_text)


def annotation_words() -> list[str]:
    """English texts of the prompt, for a tokenizer to learn."""
    return [ANNOTATION_PROMPT.format(task=task.value, last=0, input="").rstrip() for task in Task]
