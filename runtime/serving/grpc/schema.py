"""Which classes are the protocol's messages?

They live in a pool of their own: another client of the same protocol in this process, such as tritonclient, registers the
same names in protobuf's global pool, and one name can be registered there only once.
"""

from types import SimpleNamespace
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClassesForFiles

from runtime.serving.grpc.descriptor import FILE

POOL = DescriptorPool()
PACKAGE = "inference"

_file = POOL.AddSerializedFile(FILE)
_classes = GetMessageClassesForFiles([_file.name], POOL)

SERVICE = POOL.FindServiceByName(f"{PACKAGE}.GRPCInferenceService")
"""The service's descriptor: its methods with their messages."""
MESSAGES: Any = SimpleNamespace(
    **{name.removeprefix(f"{PACKAGE}."): kind for name, kind in _classes.items() if name.count(".") == 1}
)
"""The message classes by name. Any: they exist at run time alone."""
