"""What every image system keeps to, see helpers/contract.py."""

import pytest
from helpers import contract


@contract.EACH
@pytest.mark.parametrize("name", contract.names("image"))
def test_contract(name, check):
  check(name)
