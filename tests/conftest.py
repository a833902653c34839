"""What holds for every test: properties are judged by values, not by the speed of a shared machine; logging is as Python has it."""

import logging

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("edgewright", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgewright")

OURS = ("runtime", "toolchain", "fleet")


@pytest.fixture(autouse=True)
def plain_logging() -> None:
    """Libraries that some tests load set the whole process's logging to their taste, and a later test would read no message."""
    logging.disable(logging.NOTSET)
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for name, logger in list(root.manager.loggerDict.items()):
        if name.partition(".")[0] in OURS and isinstance(logger, logging.Logger):
            logger.disabled, logger.propagate = False, True
            logger.setLevel(logging.NOTSET)
