"""What is exchanged in verl comes back."""

from types import SimpleNamespace

import pytest

from sdar_verl.compat.replaced import replaced


def test_the_old_one_is_back_after_an_error():
    owner = SimpleNamespace(size=1)
    with pytest.raises(ValueError, match="inside"), replaced(owner, "size", 2):
        assert owner.size == 2
        raise ValueError("inside")
    assert owner.size == 1


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(AttributeError), replaced(SimpleNamespace(), "size", 2):
        pass
