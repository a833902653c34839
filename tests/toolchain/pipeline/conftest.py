"""Builds here are about what runs when; none looks at the operators of a profile, which take longer than the rest of a small build."""

from collections.abc import Iterator

import pytest

from toolchain.benchmark import profile


@pytest.fixture(scope="module", autouse=True)  # "package" would last until the end of the run in folders without __init__.py
def no_operators() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "OPERATORS", {})
        yield
