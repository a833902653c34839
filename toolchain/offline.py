"""Which libraries would report their use to their makers, and how are they kept from it? A build sends nothing anywhere."""

import os
import sys


def keep_offline() -> None:
    """To be called before a stage imports any of them.

    MLflow asks the environment. OpenVINO and NNCF report through a package of their own, and do without where it cannot be
    imported; they have no setting of their own for it.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: the import system's mark for "not here"
