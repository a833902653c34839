"""Endpoints that speak gRPC, and tritonclient's own client of them."""

import pytest
import tritonclient.grpc as triton

from runtime.serving.limits import LimitSettings, ServingSettings
from runtime.serving.models.repository import Repository
from tests.runtime.serving.conftest import Endpoint
from tests.support.echo import ONNX_TYPES, write_echo


def address(endpoint):
    host, port = endpoint.server.grpc.address
    return f"{host}:{port}"


@pytest.fixture
def start_grpc(start):
    """Start endpoints on the repository of the test; all stop at its end."""

    def start_one(*, serving=None, **limits):
        return start(
            settings=ServingSettings(**{"port": 0, "grpc": True, "grpc_port": 0, "drain_s": 5, **(serving or {})}), **limits
        )

    return start_one


@pytest.fixture
def connect():
    """tritonclient's clients; all close at the end of the test."""
    clients = []

    def connect_one(endpoint):
        clients.append(triton.InferenceServerClient(address(endpoint)))
        return clients[-1]

    yield connect_one
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def echoes(tmp_path_factory):
    """An endpoint with an echo of every datatype."""
    folder = tmp_path_factory.mktemp("echoes")
    repository = Repository()
    for datatype in ONNX_TYPES:
        repository.switch(repository.open(write_echo(folder / datatype, datatype)))
    endpoint = Endpoint(repository, ServingSettings(port=0, grpc=True, grpc_port=0), LimitSettings())
    yield endpoint
    endpoint.stop()
    repository.close()


@pytest.fixture(scope="module")
def client(echoes):
    client = triton.InferenceServerClient(address(echoes))
    yield client
    client.close()
