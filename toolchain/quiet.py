"""How is a library kept from warning, logging and printing about itself, where what concerns the engineer comes as an exception?"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """No warnings, no log of whatever level, nothing on stdout; stderr stays, for progress goes there. Restores what was set."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
