"""What is needed to belong to a fleet, put together and started in the right order?"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from runtime.agent.commands import Commands
from runtime.agent.connection import Connection, Incoming
from runtime.agent.inbox import Inbox
from runtime.agent.journal import Journal
from runtime.agent.outbox import Outbox
from runtime.agent.reporter import Reporter
from runtime.agent.windows import Windows
from runtime.clock import Clock
from runtime.config import Config
from runtime.contract.deployment import DeviceProfile
from runtime.identity import Identity, client_context
from runtime.serving.model import ServedModel
from runtime.update.actions import Delegate
from runtime.update.machine import Job
from runtime.update.plan import HoldBack
from runtime.update.slots import Slots
from runtime.update.store import Store
from runtime.update.updater import wanted_settings

OUTBOX_FILE = "outbox.db"
STOP_S = 5.0


class Agent:
    """The device's side of the line. Raises ConfigError when the identity cannot be read, StoreError for the outbox.

    models: what serves now; held_back: as the updater says; applied: called when a new desired state is held;
    restart: asks the daemon to stop in order and start again.
    """

    def __init__(
        self,
        *,
        config: Config,
        identity: Identity,
        boot: int,
        clock: Clock,
        store: Store,
        slots: Slots,
        profile: DeviceProfile,
        versions: Mapping[str, str],
        delegate: Delegate,
        log_lines: deque[str],
        models: Callable[[], Iterable[ServedModel]],
        held_back: Callable[[], Mapping[str, HoldBack]],
        applied: Callable[[], None],
        restart: Callable[[], None],
    ) -> None:
        state_dir: Path = config.state_dir
        self._applied = applied
        self._outbox = Outbox(state_dir / OUTBOX_FILE, config.telemetry, lambda: clock.now_s() if clock.is_synced else 0.0)
        self._connection = Connection(
            identity,
            client_context(state_dir),
            self._outbox,
            boot,
            received=self._on_message,
            connected=self._on_connected,
        )
        self.journal = Journal(identity.device, boot, clock, self._outbox, self._connection.wake)
        self._reporter = Reporter(
            boot=boot,
            clock=clock,
            store=store,
            slots=slots,
            profile=profile,
            versions=versions,
            held_back=held_back,
            line=self._connection,
        )
        self.windows = Windows(
            device=identity.device,
            boot=boot,
            clock=clock,
            outbox=self._outbox,
            state_dir=state_dir,
            models=models,
            window_s=lambda: wanted_settings(store).window_s,
            wake=self._connection.wake,
        )
        self._inbox = Inbox(
            device=identity.device,
            state_dir=state_dir,
            store=store,
            clock=clock,
            outbox=self._outbox,
            journal=self.journal,
            commands=Commands(slots, delegate, log_lines, restart),
            delegate=delegate,
            accept_timeout_s=config.update.accept_timeout_s,
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
        self._applied()

    def _on_connected(self) -> None:
        dropped = self._outbox.take_dropped()
        if dropped:
            self.journal.note("outbox", "outbox.dropped", f"{dropped} messages were dropped undelivered, oldest first")
        self.report()
