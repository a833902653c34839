"""Builds here are about what runs when; none looks at the operators of a profile, which take longer than the rest of a small build."""

from collections.abc import Iterator

import pytest

from toolchain.benchmark import profile


@pytest.fixture(scope="package", autouse=True)
def no_operators() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "OPERATORS", {})
        yield
