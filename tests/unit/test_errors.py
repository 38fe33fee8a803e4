import pickle

import pytest

from raycrp import errors

ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.RaycrpError)
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind):
    revived = pickle.loads(pickle.dumps(kind("what was found")))
    assert type(revived) is kind
    assert str(revived) == "what was found"
