import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycrp.chem.molecules import canonical_molecule, join_molecules
from raycrp.chem.reactions import (
    Reaction,
    ReactionError,
    ReactionFault,
    check_reacts,
    make_reaction,
    reaction_key,
    split_reaction,
    split_reagent_input,
    task_reaction,
    task_rows,
)
from raycrp.choices import Notation, Task

ESTERIFICATION = Reaction("CC(=O)O.CO", "O=S(=O)(O)O", "COC(C)=O")


def parse_reaction(text, *, notation=Notation.SMILES):
    """The canonical reaction, and the text with its atom maps if it had any."""

    def canonical(texts):
        return join_molecules([canonical_molecule(each, notation=notation) for each in texts])

    roles = split_reaction(text, notation=notation)
    return make_reaction(roles, canonical=canonical), roles.smiles if roles.has_maps else None


def test_three_parts_are_reactants_reagents_product():
    reaction, mapped = parse_reaction("OC.CC(=O)O>OS(=O)(=O)O>CC(=O)OC")
    assert reaction == ESTERIFICATION
    assert mapped is None


def test_two_parts_have_no_reagents():
    reaction, _ = parse_reaction("OC.CC(=O)O>>CC(=O)OC")
    assert reaction == Reaction("CC(=O)O.CO", "", "COC(C)=O")


def test_maps_tell_reactants_from_reagents_and_leave_the_text():
    text = (
        "OS(=O)(=O)O.[CH3:1][OH:2].[CH3:3][C:4](=[O:5])[OH:9]>[CH3:20][CH3:21]>"
        "[CH3:3][C:4](=[O:5])[O:2][CH3:1]"
    )
    reaction, mapped = parse_reaction(text)
    assert reaction == Reaction("CC(=O)O.CO", "CC.O=S(=O)(O)O", "COC(C)=O")
    assert mapped == (
        "[CH3:1][OH:2].[CH3:3][C:4](=[O:5])[OH:9]>OS(=O)(=O)O.[CH3:20][CH3:21]>"
        "[CH3:3][C:4](=[O:5])[O:2][CH3:1]"
    )


def test_selfies_reactions():
    reaction, _ = parse_reaction("[C][O].[O]>>[C][=O]", notation=Notation.SELFIES)
    assert reaction == Reaction("CO.O", "", "C=O")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("CC.O", ReactionFault.BAD_REACTION),
        ("CC>O", ReactionFault.BAD_REACTION),
        ("CC>>O>>N", ReactionFault.BAD_REACTION),
        ("CC->CO", ReactionFault.BAD_REACTION),
        (">>", ReactionFault.BAD_REACTION),
        (">>CO", ReactionFault.BAD_REACTION),
        ("CO>>", ReactionFault.BAD_REACTION),
        (">CO>CC", ReactionFault.BAD_REACTION),
        ("[CH4:1]>>[OH2:2]", ReactionFault.BAD_REACTION),
        ("OC.O>>CO", ReactionFault.NO_REACTION),
        ("OC>O>CO.O", ReactionFault.NO_REACTION),
    ],
)
def test_text_that_is_no_reaction(text, reason):
    with pytest.raises(ReactionError) as caught:
        parse_reaction(text)
    assert caught.value.reason is reason


def test_a_product_counts_as_new_when_more_of_it_comes_out():
    check_reacts("C.O", product="C.C")


@pytest.mark.parametrize("text", ["C>>", ">>C", ">>", "C>O>N", "C", "C>>N>>O", "C>>>N", "C=>N"])
def test_reagent_input_has_one_arrow_between_two_sides(text):
    with pytest.raises(ReactionError, match="bad_reaction"):
        split_reagent_input(text)


def test_reagent_input_may_have_blanks_around_its_arrow():
    roles = split_reagent_input("C.N >> CN")
    assert (roles.reactants, roles.reagents, roles.product) == (("C", "N"), (), ("CN",))


def test_task_rows_give_no_roles_away():
    rows = task_rows(Reaction("N.O", "C", "ON"))
    assert rows[Task.FORWARD].input == "C.N.O"
    assert rows[Task.FORWARD].output == "ON"
    assert (rows[Task.RETROSYNTHESIS].input, rows[Task.RETROSYNTHESIS].output) == ("ON", "N.O")
    assert (rows[Task.REAGENT].input, rows[Task.REAGENT].output) == ("N.O>>ON", "C")


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Task.FORWARD, Reaction("CC(=O)O.CO.O=S(=O)(O)O", "", "COC(C)=O")),
        (Task.RETROSYNTHESIS, Reaction("CC(=O)O.CO", "", "COC(C)=O")),
        (Task.REAGENT, ESTERIFICATION),
    ],
)
def test_a_task_row_tells_its_reaction(task, expected):
    text = task_rows(ESTERIFICATION)[task]
    assert task_reaction(task, input_text=text.input, output_text=text.output) == expected


@given(st.permutations(["CO", "CC(=O)O", "N"]))
@settings(max_examples=6, deadline=None)
def test_the_key_depends_neither_on_order_nor_on_reagents(reactants):
    reaction, _ = parse_reaction(".".join(reactants) + ">CCN>COC(C)=O")
    assert reaction.key == reaction_key("CC(=O)O.CO.N", product="COC(C)=O")


def test_the_key_tells_reactants_from_product():
    assert reaction_key("C", product="O") != reaction_key("O", product="C")


def test_the_key_never_changes():
    # sha256("CO>>C=O"), by another program.
    assert reaction_key("CO", product="C=O") == "a90a7fecfea8a7e663cb34be0f509748"


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ReactionError(ReactionFault.NO_REACTION, "same")))
    assert (error.reason, error.detail) == (ReactionFault.NO_REACTION, "same")
