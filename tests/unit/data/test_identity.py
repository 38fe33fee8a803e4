import itertools

import numpy as np

from raycrp.chem.reactions import Reaction, task_reaction, task_rows
from raycrp.choices import Task
from raycrp.data.identity import ReactionIndex


def resolve(*rows, is_derived=False):
    index = ReactionIndex()
    for task, reaction in rows:
        index.add(reaction, task=task, is_derived=is_derived)
    identities = index.resolve()
    return [identities.keys[code] for code in identities.codes]


def row(task, reaction):
    text = task_rows(reaction)[task]
    return task, task_reaction(task, input_text=text.input, output_text=text.output)


WHOLE = Reaction("C.N", "O", "CN")


def test_the_three_rows_of_a_reaction_share_its_key_in_any_order():
    rows = [row(task, WHOLE) for task in Task]
    for order in itertools.permutations(rows):
        assert resolve(*order) == [WHOLE.key] * 3


def test_a_forward_row_matches_a_retrosynthesis_row_alone():
    assert resolve(row(Task.FORWARD, WHOLE), row(Task.RETROSYNTHESIS, WHOLE)) == [WHOLE.key] * 2


def test_a_forward_row_without_a_match_is_a_reaction_of_its_own():
    alone = row(Task.FORWARD, WHOLE)
    other_product = row(Task.RETROSYNTHESIS, Reaction("C.N", "", "CNC"))
    other_reactants = row(Task.RETROSYNTHESIS, Reaction("C.F", "", "CN"))
    keys = resolve(alone, other_product, other_reactants)
    assert keys[0] == Reaction("C.N.O", "", "CN").key
    assert len(set(keys)) == 3


def test_molecules_count_as_often_as_they_occur():
    keys = resolve(row(Task.FORWARD, WHOLE), row(Task.RETROSYNTHESIS, Reaction("C.C.N", "", "CN")))
    assert keys[0] != keys[1]


def test_the_reaction_with_the_most_reactants_matches_best():
    small = row(Task.RETROSYNTHESIS, Reaction("C", "", "CN"))
    large = row(Task.RETROSYNTHESIS, Reaction("C.N", "", "CN"))
    assert resolve(row(Task.FORWARD, WHOLE), small, large)[0] == WHOLE.key


def test_a_reagent_row_with_the_very_precursors_matches_better_than_more_reactants():
    larger = row(Task.RETROSYNTHESIS, Reaction("C.N.O", "", "CN"))
    assert resolve(larger, row(Task.FORWARD, WHOLE), row(Task.REAGENT, WHOLE))[1] == WHOLE.key


def test_derived_rows_know_their_roles():
    text = task_rows(WHOLE)[Task.FORWARD]
    assert text.input == "C.N.O"
    keys = resolve(*((task, WHOLE) for task in Task), is_derived=True)
    assert keys == [WHOLE.key] * 3


def test_the_mixture_is_the_same_whatever_the_roles():
    index = ReactionIndex()
    index.add(row(Task.FORWARD, WHOLE)[1], task=Task.FORWARD, is_derived=False)
    index.add(Reaction("C", "N.O", "CN"), task=Task.REAGENT, is_derived=False)
    index.add(Reaction("C", "", "CN"), task=Task.RETROSYNTHESIS, is_derived=False)
    forward, reagent, retrosynthesis = index.resolve().mixtures
    assert forward == reagent != 0
    assert retrosynthesis == 0


def test_no_rows():
    identities = ReactionIndex().resolve()
    assert identities.codes.dtype == np.int64
    assert len(identities.codes) == 0


def test_a_forward_row_that_fits_several_reactions_may_be_of_any():
    index = ReactionIndex()
    large, small = Reaction("C.N", "", "CN"), Reaction("O", "", "CN")
    for task, reaction in [
        row(Task.RETROSYNTHESIS, small),
        row(Task.FORWARD, Reaction("C.N", "O", "CN")),
        row(Task.RETROSYNTHESIS, large),
    ]:
        index.add(reaction, task=task, is_derived=False)
    identities = index.resolve()
    assert identities.keys[identities.codes[1]] == large.key
    [[place, other]] = identities.alternatives.tolist()
    assert (place, identities.keys[other]) == (1, small.key)


def test_a_reagent_row_does_not_settle_what_a_forward_row_may_be_of():
    index = ReactionIndex()
    larger = Reaction("C.N.O", "", "CN")
    for task, reaction in [
        row(Task.RETROSYNTHESIS, larger),
        row(Task.FORWARD, WHOLE),
        row(Task.REAGENT, WHOLE),
    ]:
        index.add(reaction, task=task, is_derived=False)
    identities = index.resolve()
    [[place, other]] = identities.alternatives.tolist()
    assert (place, identities.keys[other]) == (1, larger.key)
