"""What tests of processing share: manifests small enough to read."""

from tests.runtime.monitor.conftest import make_manifest

__all__ = ["make_manifest"]
