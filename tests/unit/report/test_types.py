from raycrp.report.types import read_types


def test_tasks_of_the_same_types_share_a_table(template_run):
    tables = read_types(template_run)
    assert [table.title for table in tables] == ["forward, retrosynthesis", "reagent"]
    (card,) = tables[0].cards
    assert card.changes == {
        "bonds": [("C-O made", 0.96)],
        "rings": [],
        "groups": [("ester gained", 0.75)],
    }
    assert card.specific == [("ester gained", 12.5)]
    before, after = card.drawing
    assert (len(before), len(after)) == (2, 1)


def test_a_run_without_cards(empty_run):
    assert read_types(empty_run) == []
