"""How does inference.proto become descriptor.py? By protoc, for developers: `make proto` (needs grpcio-tools, extra `dev`).

    python -m runtime.serving.grpc.generate

The generated module holds the compiled description alone. protoc's own Python code would bind the device to one major
version of protobuf, and put its messages into the process-wide pool, where those of another client of the protocol collide.
"""

import base64
import tempfile
import textwrap
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

HERE = Path(__file__).parent
SOURCE = HERE / "inference.proto"
TARGET = HERE / "descriptor.py"
_COLUMNS = 120


def compiled() -> bytes:
    """The FileDescriptorProto of inference.proto as protoc sees it now."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        status = protoc.main(["protoc", f"--proto_path={HERE}", f"--descriptor_set_out={out}", SOURCE.name])
        if status:
            raise SystemExit(f"protoc refuses {SOURCE.name}: status {status}")
        described = FileDescriptorSet.FromString(out.read_bytes())
    return bytes(described.file[0].SerializeToString(deterministic=True))


def module_text(description: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(description).decode(), _COLUMNS)
    return "\n".join(
        [
            '"""What does inference.proto say, compiled? Generated from it by `make proto`; not for editing."""',
            "",
            "from base64 import b64decode",
            "",
            "FILE = b64decode(",
            *(f'    b"{line}"' for line in lines),
            ")",
            '"""A serialized google.protobuf.FileDescriptorProto."""',
            "",
        ]
    )


if __name__ == "__main__":
    TARGET.write_text(module_text(compiled()), encoding="utf-8")
