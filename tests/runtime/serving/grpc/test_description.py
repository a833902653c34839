"""Does our own description of the protocol fit its source and the protocol's other speakers?"""

import subprocess
import sys

import tritonclient.grpc.model_config_pb2 as public_config
import tritonclient.grpc.service_pb2 as public_service
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from runtime.serving.grpc.descriptor import FILE
from runtime.serving.grpc.generate import TARGET, compiled, module_text

MIGHT_LEAVE_OUT = {"response_stats", "runtime", "batch_input", "batch_output", "optimization"}


def described(module):
    description = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(description)
    return description


def messages(described_in, prefix=""):
    for message in described_in:
        yield f"{prefix}{message.name}", message
        yield from messages(message.nested_type, f"{prefix}{message.name}.")


OURS = FileDescriptorProto.FromString(FILE)
PUBLIC = [described(public_service), described(public_config)]
PUBLIC_MESSAGES = {name: message for file in PUBLIC for name, message in messages(file.message_type)}


def test_the_generated_module_is_that_of_the_source():
    assert TARGET.read_text() == module_text(compiled()), "run: make proto"


def test_every_field_has_the_public_number_type_and_label():
    for name, message in messages(OURS.message_type):
        public = {field.name: field for field in PUBLIC_MESSAGES[name].field}
        for field in message.field:
            theirs = public[field.name]
            assert (field.number, field.type, field.label, field.type_name) == (
                theirs.number,
                theirs.type,
                theirs.label,
                theirs.type_name,
            ), f"{name}.{field.name}"
            assert field.HasField("oneof_index") == theirs.HasField("oneof_index"), f"{name}.{field.name}"


def test_nothing_of_the_protocol_itself_is_left_out():
    """Of the configuration of models much is: it speaks of schedulers that are not here."""
    config = {name for name, _ in messages(PUBLIC[1].message_type)}
    for name, message in messages(OURS.message_type):
        if name not in config:
            left_out = {field.name for field in PUBLIC_MESSAGES[name].field} - {field.name for field in message.field}
            assert left_out <= MIGHT_LEAVE_OUT, name


def test_every_method_and_enumeration_is_the_public_one():
    (service,) = OURS.service
    public = {method.name: method for method in PUBLIC[0].service[0].method}
    for method in service.method:
        theirs = public[method.name]
        theirs.ClearField("options")
        assert method == theirs
    left_out = set(public) - {method.name for method in service.method}
    assert all(name.startswith(("Cuda", "Trace", "Log")) for name in left_out)
    values = {value.name: value.number for value in OURS.enum_type[0].value}
    assert values == {value.name: value.number for value in PUBLIC[1].enum_type[0].value}


def test_both_load_in_one_process_in_either_order():
    for first, second in (
        ("runtime.serving.grpc.schema", "tritonclient.grpc"),
        ("tritonclient.grpc", "runtime.serving.grpc.schema"),
    ):
        subprocess.run([sys.executable, "-W", "error", "-c", f"import {first}, {second}"], check=True)
