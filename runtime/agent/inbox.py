"""What becomes of a message to this device?

`desired` and commands are believed only after the helper has verified them; a message that cannot be, is dropped, counted
and told with its stable code. An acknowledgement goes out when the message has been dealt with, not before.
"""

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable

import msgspec

from runtime.agent.commands import Commands
from runtime.agent.connection import Incoming
from runtime.agent.journal import Journal
from runtime.agent.sender import Sender
from runtime.contract.canonical import COMMAND_LIMIT, DESIRED_LIMIT, read_message, write_message
from runtime.contract.deployment import Desired, Envelope
from runtime.contract.errors import ContractError, TooLargeError, TopicError
from runtime.contract.telemetry import Command, Result
from runtime.contract.topics import DELIVERY, Address, Channel, parse
from runtime.errors import DaemonError
from runtime.update.requests import AcceptRequest, Reply
from runtime.update.state import State
from runtime.update.store import Held

log = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 60.0


class Inbox:
    """One thread that deals with messages in the order they came. accept: the helper; applied: called when a new desired state is held."""

    def __init__(
        self,
        sender: Sender,
        state: State,
        commands: Commands,
        *,
        journal: Journal,
        accept: Callable[[AcceptRequest], Reply],
        applied: Callable[[], None],
        acknowledge: Callable[[Incoming], None],
    ) -> None:
        self._sender = sender
        self._state = state
        self._journal = journal
        self._commands = commands
        self._accept = accept
        self._applied = applied
        self._acknowledge = acknowledge
        self._waiting: queue.Queue[Incoming | None] = queue.Queue()
        self._unsettled: Incoming | None = None
        self._retry_s = FIRST_RETRY_S
        self.refused: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._waiting.put(None)
        self._thread.join(timeout_s)

    def receive(self, message: Incoming) -> None:
        """Take a message from the connection's thread."""
        self._waiting.put(message)

    def handle(self, message: Incoming) -> None:
        """Deal with one message, to its acknowledgement."""
        try:
            address = parse(message.topic)
            if len(message.payload) > DELIVERY[address.channel].limit:
                raise TooLargeError(f"{address.channel} of {len(message.payload)} bytes is over the limit")
            if address.channel is Channel.DESIRED:
                self._take_desired(message)
            elif address.channel is Channel.COMMAND:
                self._take_command(message.payload, address)
            else:
                raise TopicError(f"{address.channel} is not for devices to read")
        except ContractError as error:
            self._refuse(message.topic, error)
        except DaemonError as error:
            # No refusal: the store is out of reach, or the helper died of something else. It is tried again.
            log.warning("a message on %s waits: %s", message.topic, error)
            self._unsettled = message
            return
        self._acknowledge(message)

    def _run(self) -> None:
        while True:
            try:
                message = self._waiting.get(timeout=self._retry_s if self._unsettled else None)
            except queue.Empty:
                self._retry_s = min(LONGEST_RETRY_S, 2 * self._retry_s)
                message, self._unsettled = self._unsettled, None
            else:
                if message is None:
                    return
            if message is not None:
                self._handle_safely(message)
            if self._unsettled is None:
                self._retry_s = FIRST_RETRY_S

    def _handle_safely(self, message: Incoming) -> None:
        try:
            self.handle(message)
        except Exception:  # the worker's edge: a message that trips a bug must not deafen the device
            log.exception("a message on %s could not be dealt with", message.topic)

    def _take_desired(self, message: Incoming) -> None:
        older, self._unsettled = self._unsettled, None
        if older is not None and older is not message:  # what waited is older than this and will never be needed
            self._acknowledge(older)
        held = self._state.store.held()
        if held is not None and held.envelope == message.payload:
            return
        # Cheap checks first: what is not even well-formed is not worth a process.
        read_message(read_message(message.payload, Envelope, DESIRED_LIMIT).value.payload, Desired, DESIRED_LIMIT)
        request = AcceptRequest(
            state_dir=str(self._state.directory),
            kind="desired",
            envelope=message.payload,
            held=held.payload if held else b"",
            now_s=int(self._state.clock.now_s()),
        )
        reply = self._accept(request)
        self._state.store.hold(Held(message.payload, reply.payload))
        if reply.is_new:
            desired = msgspec.msgpack.decode(reply.payload, type=Desired)
            log.info("desired generation %d accepted", desired.generation)
            self._state.clock.trust(desired.issued_at)
            self._applied()

    def _take_command(self, payload: bytes, address: Address) -> None:
        if self._state.store.is_done(address.id):
            return
        body, code = b"", ""
        try:
            command = self._verified(payload, address)
            body = self._commands.run(command)
        except (ContractError, DaemonError) as error:
            code, body = error.code, str(error).encode()[:1000]
            self._refuse(f"command {address.id}", error)
        result = Result(device=self._sender.device, id=address.id, code=code, body=body)
        self._sender.outbox.put(Channel.RESULT, write_message(result, COMMAND_LIMIT), address.id)

    def _verified(self, payload: bytes, address: Address) -> Command:
        """The command, remembered as done from here on: one that takes the device down is not tried again."""
        read_message(read_message(payload, Envelope, COMMAND_LIMIT).value.payload, Command, COMMAND_LIMIT)
        now_s = int(self._state.clock.now_s())
        request = AcceptRequest(state_dir=str(self._state.directory), kind="command", envelope=payload, now_s=now_s)
        reply = self._accept(request)
        command = msgspec.msgpack.decode(reply.payload, type=Command)
        if command.id != address.id:
            raise TopicError(f"command {command.id} came on the topic of {address.id}")
        self._state.store.mark_done(command.id, command.expires, now_s)
        return command

    def _refuse(self, what: str, error: ContractError | DaemonError) -> None:
        self.refused[error.code] += 1
        log.warning("refused %s: %s: %s", what, error.code, error)
        self._journal.note("refused", error.code, f"{what}: {error} (number {self.refused[error.code]} since the start)")
