"""A plain mosquitto for a device's own use, a client beside the daemon's, and the stream between them."""

import asyncio
import json
import queue
import signal
import socket
import subprocess
import threading
import time

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from runtime.serving.inference import Inference
from runtime.serving.limits import LimitSettings
from runtime.serving.stream.settings import StreamSettings
from runtime.serving.stream.stream import Stream
from tests.support.broker import PROGRAM, START_S, free_port

TOPICS = {"topic_in": "plant/in", "topic_out": "plant/out", "topic_dead": "plant/dead"}
WAIT_S = 30.0


class LocalBroker:
    """mosquitto without TLS, keeping sessions on disk as docs/runtime/stream.md says."""

    def __init__(self, folder):
        folder.mkdir()
        self.port = free_port()
        self._folder = folder
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\n"
            f"persistence true\npersistence_location {folder}/\nuser root\n"
            "set_tcp_nodelay true\n"
        )
        self.start()

    def start(self):
        self._log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(
            [PROGRAM, "-c", str(self._folder / "mosquitto.conf")], stdout=self._log, stderr=subprocess.STDOUT
        )
        until = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise RuntimeError((self._folder / "log").read_text()) from None
                time.sleep(0.02)
            else:
                return

    def stop(self):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        self._log.close()


class Peer:
    """Who asks: publishes to the stream's topic and sees what comes back."""

    def __init__(self, broker, name="peer"):
        self.answers, self.dead, self.others = queue.Queue(), queue.Queue(), queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(1000)
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", broker.port, clean_start=False, properties=session)
        self._client.loop_start()
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.subscribe([(topic, 1) for topic in ("plant/out", "plant/dead", "plant/reply/+")])
        assert subscribed.wait(WAIT_S)

    def ask(self, payload, *, qos=1, wait=True, **properties):
        given = Properties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(given, name, value)
        info = self._client.publish("plant/in", payload, qos, properties=given)
        if wait:
            info.wait_for_publish(WAIT_S)
        return info

    def stop(self):
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client, _data, message):
        {"plant/out": self.answers, "plant/dead": self.dead}.get(message.topic, self.others).put(message)


class Running:
    """The stream in an event loop of its own."""

    def __init__(self, repository, settings, limits):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.inference = self.run(self._inference(repository))
        self.stream = Stream(settings, limits, repository, self.inference, jitter=lambda: 0.0)
        self._task = asyncio.run_coroutine_threadsafe(self.stream.run(), self.loop)

    async def _inference(self, repository):
        return Inference(repository, inline_ns=200_000, waiting=64)

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)

    def stop(self):
        self.run(self.stream.stop(5))
        self._task.result(WAIT_S)
        self.run(asyncio.to_thread(self.inference.close))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def until(holds):
    while not holds():
        await asyncio.sleep(0.005)


def json_request(rows, id=""):
    return json.dumps(
        {"id": id, "inputs": [{"name": "input", "shape": rows.shape, "datatype": "FP32", "data": rows.ravel().tolist()}]}
    ).encode()


@pytest.fixture
def local_broker(tmp_path):
    broker = LocalBroker(tmp_path / "broker")
    yield broker
    broker.stop()


@pytest.fixture
def peer(local_broker):
    peer = Peer(local_broker)
    yield peer
    peer.stop()


@pytest.fixture
def start_stream(repository, local_broker):
    """Start streams on the test's repository; all stop at its end."""
    running = []

    def start(*, limits=None, **settings):
        given = {"broker": f"mqtt://127.0.0.1:{local_broker.port}", "model": "tiny", **TOPICS, **settings}
        running.append(Running(repository, StreamSettings(**given), limits or LimitSettings()))
        running[-1].run(until(lambda: running[-1].stream.is_up))
        return running[-1]

    yield start
    for one in running:
        one.stop()
