from math import log2

import pytest

from raycrp.chem.changes import Change, ChangeKind, ReactionChange
from raycrp.chem.summaries import NO_CHANGE, name_types

MADE = Change(ChangeKind.BOND_MADE, "C-N")
LOST = Change(ChangeKind.GROUP_LOST, "acyl halide")
ACYLATION = ReactionChange(bonds_made={"C-N": 1}, groups_lost={"acyl halide": 1})
ALKYLATION = ReactionChange(bonds_made={"C-N": 2}, groups_lost={"alkyl halide": 1})
OXIDATION = ReactionChange(bonds_changed={"C-O to C=O": 1}, hydrogens_lost={"C": 1, "O": 1})


def test_shares_are_those_inside_and_outside_a_type():
    changes = [ACYLATION] * 3 + [ALKYLATION] + [OXIDATION] * 2
    first, second = name_types(changes, labels=[0, 0, 0, 0, 1, 1])
    assert (first.label, first.size, second.label, second.size) == (0, 4, 1, 2)
    by_change = {each.change: each for each in first.frequent}
    assert (by_change[MADE].share, by_change[MADE].share_elsewhere) == (1, 0)
    assert (by_change[LOST].share, by_change[LOST].share_elsewhere) == (0.75, 0)
    # Smoothed: (4 + 1/2) of (4 + 1) here, 1/2 of (2 + 1) elsewhere.
    assert by_change[MADE].specificity == pytest.approx(0.9 * log2(0.9 / (0.5 / 3)))
    assert first.frequent[0].change == first.specific[0].change == MADE


def test_names_say_what_happens_to_bonds_and_groups():
    changes = [ACYLATION] * 3 + [ALKYLATION] * 3 + [OXIDATION] * 3
    names = [each.name for each in name_types(changes, labels=[2] * 3 + [5] * 3 + [7] * 3)]
    assert names == ["C-N made, acyl halide lost", "C-N made, alkyl halide lost", "C-O to C=O"]


def test_what_is_common_everywhere_is_frequent_but_not_specific():
    acylation, alkylation = name_types([ACYLATION] * 4 + [ALKYLATION] * 4, labels=[0] * 4 + [1] * 4)
    assert MADE in [each.change for each in acylation.frequent]
    assert MADE not in [each.change for each in acylation.specific]
    assert alkylation.specific[0].change.text == "alkyl halide lost"


def test_rare_changes_do_not_name_a_type():
    changes = [ReactionChange()] * 9 + [OXIDATION]
    assert name_types(changes, labels=[0] * 10)[0].name == NO_CHANGE


def test_types_of_the_same_changes_get_names_of_their_own():
    names = [each.name for each in name_types([ACYLATION] * 4, labels=[0, 0, 1, 1])]
    assert names == ["C-N made, acyl halide lost", "C-N made, acyl halide lost (2)"]


def test_the_order_of_reactions_does_not_count():
    changes, labels = [ACYLATION, ALKYLATION, OXIDATION] * 4, [0, 1, 1] * 4
    backwards = name_types(changes[::-1], labels=labels[::-1])
    assert backwards == name_types(changes, labels=labels)


def test_no_more_changes_are_listed_than_asked_for():
    (only,) = name_types([ACYLATION] * 3, labels=[0] * 3, num_shown=1)
    assert len(only.frequent) == 1
    assert only.specific[0].share_elsewhere == 0


def test_as_many_labels_as_changes():
    with pytest.raises(ValueError, match="1 changes but 0 labels"):
        name_types([ACYLATION], labels=[])


def test_a_sample_of_each_type_counts_as_the_whole_type():
    changes, labels = [ACYLATION] * 2 + [ALKYLATION, OXIDATION], [0, 0, 1, 1]
    first, second = name_types(changes, labels=labels, sizes={0: 20, 1: 4})
    assert (first.size, second.size) == (20, 4)
    by_change = {each.change: each for each in second.frequent}
    assert (by_change[MADE].share, by_change[MADE].share_elsewhere) == (0.5, 1)
    # Smoothed: half of 4 reactions here, 20 of 20 elsewhere.
    assert by_change[MADE].lift == pytest.approx((2.5 / 5) / (20.5 / 21))
