"""How do real digits reach a device? One thread a device posts held-out scans to its Open Inference Protocol endpoint."""

import http.client
import importlib.util
import json
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.demo.local_fleet import MODEL, RECIPE

Images = np.ndarray
Change = Callable[[Images], Images]


def held_out_digits() -> tuple[Images, np.ndarray]:
    """The recipe's own test split: float32[n, 1, 32, 32] in 0..1 and labels int64[n]."""
    images, labels = _recipe_module().splits()["test"]
    return images, labels


def out_of_focus(images: Images) -> Images:
    """A lens that slipped: every pixel becomes the mean of the 9x9 around it, so edges go and the light stays."""
    reach = 4
    padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1), axis=(2, 3))
    blurred: Images = windows.mean(axis=(4, 5), dtype=np.float32)
    return blurred


class DigitsClient:
    """A device's digits model over HTTP with binary tensors, one kept-alive connection. Closes itself on trouble, opens anew."""

    def __init__(self, port: int, model: str = MODEL) -> None:
        """model: another with one float32 input and one float32 output."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        self._path, self._input = f"/v2/models/{model}", ""

    def infer(self, images: Images) -> np.ndarray:
        """Logits float32[n, 10] of images float32[n, 1, 32, 32]. Raises DeviceError with the device's own words."""
        try:
            self._input = self._input or str(self._call("GET", self._path)["inputs"][0]["name"])
            return self._infer(np.ascontiguousarray(images, dtype="<f4"))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise DeviceError(repr(error)) from error

    def close(self) -> None:
        self._connection.close()

    def _infer(self, images: Images) -> np.ndarray:
        binary = {"binary_data_size": images.nbytes}
        tensor = {"name": self._input, "datatype": "FP32", "shape": list(images.shape), "parameters": binary}
        header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}
        self._connection.request("POST", f"{self._path}/infer", header + images.tobytes(), headers)
        response, answer = self._answer()
        split = int(response.headers["Inference-Header-Content-Length"])
        return np.frombuffer(answer[split:], "<f4").reshape(json.loads(answer[:split])["outputs"][0]["shape"])

    def _call(self, method: str, path: str) -> dict[str, Any]:
        self._connection.request(method, path)
        answer: dict[str, Any] = json.loads(self._answer()[1])
        return answer

    def _answer(self) -> tuple[http.client.HTTPResponse, bytes]:
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise DeviceError(f"{response.status}: {body[:300]!r}")
        return response, body


class DeviceError(Exception):
    """The device refused, failed, or is not there just now."""


class Traffic:
    """Posts one image after another at about `rate_hz`, in its own shuffled order, until stopped.

    Failures are counted and the next image is tried: a device that restarts is part of the story.
    """

    def __init__(self, port: int, images: Images, rate_hz: float, seed: int) -> None:
        self.sent = self.failed = 0
        self.change: Change | None = None
        self._port, self._images, self._pause_s = port, images, 1 / rate_hz
        self._order = np.random.default_rng(seed)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"traffic-{port}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(5)

    def _run(self) -> None:
        client = DigitsClient(self._port)
        due = time.monotonic()
        for image in self._endless():
            if self._stopped.is_set():
                break
            try:
                client.infer(self.change(image) if self.change else image)
                self.sent += 1
            except DeviceError:
                self.failed += 1
            due = max(due + self._pause_s, time.monotonic() - 1)
            self._stopped.wait(max(0.0, due - time.monotonic()))
        client.close()

    def _endless(self) -> Iterator[Images]:
        while True:
            for row in self._order.permutation(len(self._images)):
                yield self._images[row : row + 1]


def _recipe_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits_recipe", RECIPE.with_name("digits.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
