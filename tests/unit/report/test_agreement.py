import pytest

from raycrp.report.agreement import TypeProfile, measure_agreement


def test_agreement_of_a_run(template_run):
    """Clusters equal the classes; LLM-RT on test rows does too, where there is more than one."""
    found = {(each.task, each.source): each for each in measure_agreement(template_run, seed=0)}
    assert set(found) == {
        ("forward", "k-means, training rows"),
        ("forward", "LLM-RT, test rows"),
        ("retrosynthesis", "LLM-RT, test rows"),
    }
    clusters = found["forward", "k-means, training rows"]
    assert clusters.ami == pytest.approx(1)
    assert (clusters.num_rows, clusters.num_classes) == (8, 2)
    assert list(clusters.profiles) == [
        TypeProfile(0, 4, "even", 1.0),
        TypeProfile(1, 4, "odd", 1.0),
    ]


def test_columns_that_name_no_classes_are_left_out(template_run):
    assert {each.truth for each in measure_agreement(template_run, seed=0)} == {"reaction_class"}


def test_a_run_without_truth(empty_run):
    assert measure_agreement(empty_run, seed=0) == []
