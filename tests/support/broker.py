"""A real mosquitto with TLS on a free port, and a client that plays the fleet on it."""

import queue
import socket
import ssl
import subprocess
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from runtime.contract.topics import Channel, parse, topic
from tests.support.pki import Authority

PROGRAM = "mosquitto"
START_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """Mutual TLS, the certificate's name as user name, and the access list of a fleet: a device touches its own branch only."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        folder.mkdir(parents=True)
        self.authority = authority
        self.port = free_port()
        self._folder = folder
        certificate, key = authority.server("broker")
        (folder / "acl").write_text(
            "user service-fleet\ntopic readwrite #\n"
            "pattern read edge/1/+/%u/desired\npattern read edge/1/+/%u/command/+\n"
            "pattern write edge/1/+/%u/reported\npattern write edge/1/+/%u/presence\npattern write edge/1/+/%u/event\n"
            "pattern write edge/1/+/%u/telemetry\npattern write edge/1/+/%u/result/+\n"
        )
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\ncafile {authority.folder / 'ca.pem'}\ncertfile {certificate}\nkeyfile {key}\n"
            "require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n"
            f"acl_file {folder / 'acl'}\nmax_queued_messages 10000\nmax_inflight_messages 20\nuser root\n"
            f"persistence true\npersistence_location {folder}/\n"
        )
        self.start()

    def start(self) -> None:
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

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()


class FleetClient:
    """The service's end: sees what devices publish, publishes what they read."""

    def __init__(self, broker: Broker, fleet: str = "plant") -> None:
        self._fleet = fleet
        self._arrived: queue.Queue[tuple[str, Channel, str, bytes]] = queue.Queue()
        self.seen: list[tuple[str, Channel, str, bytes]] = []
        certificate, key = broker.authority.client("service-fleet")
        context = ssl.create_default_context(cafile=str(broker.authority.folder / "ca.pem"))
        context.load_cert_chain(certificate, key)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="service-fleet", protocol=mqtt.MQTTv5)
        self._client.tls_set_context(context)
        self._client.on_message = self._on_message
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600  # the broker keeps what comes while this client is away, as for the real service
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("localhost", broker.port, clean_start=False, properties=session)
        self._client.loop_start()
        for channel in ("reported", "presence", "event", "telemetry", "result/+"):
            self._client.subscribe(f"edge/1/{fleet}/+/{channel}", 1)

    def publish(self, device: str, channel: Channel, payload: bytes, id: str = "") -> None:
        self._client.publish(
            topic(self._fleet, device, channel, id), payload, 1, retain=channel is Channel.DESIRED
        ).wait_for_publish(10)

    def wait(self, accepts, timeout_s: float = 60.0):
        """The first message, seen already or yet to come, for which accepts(device, channel, id, payload) is not None or False."""
        for message in self.seen:
            if result := accepts(*message):
                return result
        until = time.monotonic() + timeout_s
        while True:
            try:
                message = self._arrived.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                kinds = [(device, str(channel)) for device, channel, _, _ in self.seen]
                raise AssertionError(f"nothing fitting arrived in {timeout_s} s; seen: {kinds[-20:]}") from None
            self.seen.append(message)
            if result := accepts(*message):
                return result

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client, _data, message) -> None:
        address = parse(message.topic)
        self._arrived.put((address.device, address.channel, address.id, bytes(message.payload)))
