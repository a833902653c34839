"""A network small enough to be trained, pruned and taught within a test, on bars drawn in four directions."""

import pytest

from tests.toolchain.compress.bars import Bars


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Bars:
    """Trained once; not to be changed."""
    return Bars(tmp_path_factory.mktemp("bars"))
