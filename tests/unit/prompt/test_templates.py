import re

from raycrp.choices import Task
from raycrp.prompt.templates import (
    bare_template,
    compose_prompt,
    known_templates,
    load_templates,
    prompt_words,
    reaction_type_name,
)


def test_each_task_has_twelve_templates_with_its_own_ids():
    library = load_templates()
    assert list(library) == list(Task)
    for task, templates in library.items():
        assert [t.id for t in templates] == [f"{task}-{n:02d}" for n in range(1, 13)]
        assert {t.task for t in templates} == {task}


def test_the_bare_template_comes_after_the_twelve_and_is_never_chosen():
    for task in Task:
        assert known_templates(task)[:12] == load_templates()[task]
        assert known_templates(task)[12:] == (bare_template(task),)
        assert bare_template(task) not in load_templates()[task]


def test_no_instruction_is_used_twice():
    texts = [t.text for templates in load_templates().values() for t in templates]
    assert len(set(texts)) == 36


def test_prompt_is_instruction_then_reaction_type_then_input():
    prompt = compose_prompt("Do it.", reaction_type_name="R5", input_text="CCO")
    assert prompt == "Do it. The reaction type is R5. CCO"
    assert compose_prompt("Do it.", reaction_type_name=None, input_text="CCO") == "Do it. CCO"


def test_parts_that_are_encoded_apart_each_have_their_end():
    names = {"input_text": "CCO", "part_end": "</s>"}
    prompt = compose_prompt("Do it.", reaction_type_name="R5", **names)
    assert prompt == "Do it.</s> The reaction type is R5.</s> CCO"
    assert compose_prompt("Do it.", reaction_type_name=None, **names) == "Do it.</s> CCO"


def test_reaction_type_names_differ_between_tasks():
    names = [reaction_type_name(task, number) for task in Task for number in range(12)]
    assert len(set(names)) == 36
    assert reaction_type_name(Task.FORWARD, 5) == "F5"
    assert reaction_type_name(Task.RETROSYNTHESIS, 5) == "R5"
    assert reaction_type_name(Task.REAGENT, 5) == "G5"


def test_prompt_words_hold_every_english_word_of_a_prompt():
    def words(text):
        return set(re.findall(r"[A-Za-z]+", text))

    known = set().union(*map(words, prompt_words([Task.REAGENT])))
    for template in load_templates()[Task.REAGENT]:
        prompt = compose_prompt(template.text, reaction_type_name="", input_text="")
        assert words(prompt) <= known
    assert words(bare_template(Task.REAGENT).text) <= known
    assert "backwards" not in known
