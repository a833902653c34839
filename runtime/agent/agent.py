"""What is needed to belong to a fleet, put together and started in the right order?"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

from runtime.agent.commands import Commands
from runtime.agent.connection import Connection, Incoming
from runtime.agent.inbox import Inbox
from runtime.agent.journal import Journal
from runtime.agent.outbox import Outbox
from runtime.agent.reporter import Reporter
from runtime.agent.sender import Sender
from runtime.agent.windows import Windows
from runtime.config import Config
from runtime.contract.deployment import DeviceProfile
from runtime.identity import Identity, client_context
from runtime.serving.models.model import ServedModel
from runtime.update.machine import Job
from runtime.update.plan import HoldBack
from runtime.update.requests import Reply, Request, Task
from runtime.update.state import State
from runtime.update.updater import wanted_settings

OUTBOX_FILE = "outbox.db"
STOP_S = 5.0


class Host(Protocol):
    """The daemon, as the agent needs it. log_lines: newest last; delegate: the helper."""

    config: Config
    state: State
    profile: DeviceProfile
    versions: Mapping[str, str]
    log_lines: deque[str]

    def delegate(self, task: Task, request: Request, timeout_s: float) -> Reply: ...

    def models(self) -> Iterable[ServedModel]:
        """What serves now."""

    def held_back(self) -> Mapping[str, HoldBack]:
        """Why a wanted update has not started, by model."""

    def desired_changed(self) -> None:
        """A new desired state is held."""

    def restart(self) -> None:
        """Stop in order and start again."""


class Agent:
    """The device's side of the line. Raises ConfigError when the identity cannot be read, StoreError for the outbox."""

    def __init__(self, host: Host, identity: Identity, boot: int) -> None:
        state, config = host.state, host.config
        clock, store = state.clock, state.store
        self._host = host
        self._outbox = Outbox(state.directory / OUTBOX_FILE, config.telemetry, lambda: clock.now_s() if clock.is_synced else 0.0)
        self._connection = Connection(
            identity,
            client_context(state.directory),
            self._outbox,
            boot,
            received=self._on_message,
            connected=self._on_connected,
        )
        sender = Sender(identity.device, boot, clock, self._outbox, self._connection.wake)
        self.journal = Journal(sender)
        self.windows = Windows(sender, state.directory, host.models, lambda: wanted_settings(store).window_s)
        self._reporter = Reporter(
            state, self._connection, boot=boot, profile=host.profile, versions=host.versions, held_back=host.held_back
        )
        self._inbox = Inbox(
            sender,
            state,
            Commands(state.slots, host.delegate, host.log_lines, host.restart),
            journal=self.journal,
            accept=lambda request: host.delegate(Task.ACCEPT, request, config.update.accept_timeout_s),
            applied=self._on_applied,
            acknowledge=self._connection.acknowledge,
        )

    def start(self) -> None:
        self.windows.start()
        self._inbox.start()
        self._connection.start()

    def stop(self) -> None:
        """Last windows, a goodbye to the broker, and everything unsent safe on disk."""
        self._inbox.stop(STOP_S)
        self.windows.stop()
        self._connection.stop()
        self._outbox.close()

    def report(self) -> None:
        """Something the report speaks of has changed."""
        self._reporter.send()

    def note_step(self, job: Job) -> None:
        """An update has moved: an event for the fleet's log, and a new report."""
        detail = f"{job.state}: {job.error_detail}" if job.error_detail else str(job.state)
        self.journal.note(
            "update",
            job.error_code,
            detail,
            model=job.model,
            artifact=job.artifact,
            rollout=job.rollout,
            attempt=job.attempt,
        )
        self.report()

    def _on_message(self, message: Incoming) -> None:
        self._inbox.receive(message)

    def _on_applied(self) -> None:
        self.report()
        self._host.desired_changed()

    def _on_connected(self) -> None:
        dropped = self._outbox.dropped()
        if dropped and self.journal.note(
            "outbox", "outbox.dropped", f"{dropped} messages were dropped undelivered, oldest first"
        ):
            self._outbox.told_dropped(dropped)
        self.report()
