"""How do serving, updates and the line to the fleet become one process that never stops serving?

Order of a start: count it, settle interrupted updates, open the active slots, serve; only then is anything loaded that
serving does not need (TLS, the broker's client). Order of a stop: answer open requests, last windows, goodbye.
"""

import asyncio
import logging
import platform
import secrets
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.backends.fallback import FALLBACK_CODE
from runtime.config import Config, supervised_by
from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import SHARE_WHOLE, DeviceProfile, Role
from runtime.engines import EngineNotes
from runtime.errors import ConfigError, DaemonError, ExtraMissingError, StoreDamagedError, StoreError, StuckError
from runtime.files import held_alone, make_state_directory
from runtime.identity import read_identity
from runtime.memory import share_one_arena
from runtime.notify import Notifier
from runtime.profile import detect_profile
from runtime.reload import stored_models
from runtime.serving.affinity import Affinity
from runtime.serving.inference import Inference
from runtime.serving.models.health import Health
from runtime.serving.models.loading import loaders
from runtime.serving.models.model import ServedModel
from runtime.serving.models.repository import Repository
from runtime.serving.models.shadow import ShadowSettings
from runtime.serving.polling import run
from runtime.serving.server import serve
from runtime.serving.stream.settings import check_stream
from runtime.serving.stream.starter import StreamStarter
from runtime.update.actions import Actions
from runtime.update.boot import open_active, recover_jobs
from runtime.update.delegate import delegate
from runtime.update.lanes import parts_of
from runtime.update.machine import Job, Machine
from runtime.update.plan import HoldBack
from runtime.update.requests import Reply, Request, Task
from runtime.update.state import open_state_to_serve, takes_writes
from runtime.update.updater import Updater, wanted_settings
from runtime.watchdog import Check, LoopPulse, Watchdog, shortest, stuck_in, take_reason

if TYPE_CHECKING:
    from runtime.agent.agent import Agent

log = logging.getLogger(__name__)

STOP_S = 5.0
DISK_LOOK_S = 5.0
_COUNTER_BITS, _RANDOM_BITS = 23, 40


def run_daemon(config: Config, log_lines: deque[str]) -> bool:
    """Serve until SIGTERM or SIGINT. Returns True when a restart was asked for.

    Raises ConfigError when another daemon holds the state directory or the endpoint cannot be opened.
    """
    make_state_directory(config.state_dir)
    share_one_arena()
    with held_alone(config.state_dir):
        return bool(run(Daemon(config, log_lines).run(), config.serving.loop_poll_us))


class Live:
    """The serving side as updates see it. replaced, begun: told which version left and which began to serve.

    changed: told after each change of what serves; alarm: of model, code and detail where something serves as it should not.
    """

    def __init__(self, repository: Repository, changed: Callable[[], None], alarm: Callable[[str, str, str], None]) -> None:
        self._repository = repository
        self._changed = changed
        self._alarm = alarm
        repository.fell_back = self._fell_back
        self.replaced: Callable[[ServedModel], None] = lambda _served: None
        self.begun: Callable[[ServedModel], None] = lambda _served: None

    def open(self, directory: Path, role: Role = "active", share: int = SHARE_WHOLE, *, trial: bool = False) -> ServedModel:
        return self._repository.open(directory, role, share, trial=trial)

    def switch(self, served: ServedModel) -> None:
        previous = self._repository.switch(served)
        if previous is not None:
            self.replaced(previous)
        self.begun(served)
        self._changed()
        if served.engine.passed_over:
            self._alarm(served.manifest.model, FALLBACK_CODE, f"{served.manifest.version} runs in {served.engine}")

    def retire(self, model: str, role: Role = "active") -> None:
        previous = self._repository.retire(model, role)
        if previous is not None:
            self.replaced(previous)
        self._changed()

    def artifact(self, model: str, role: Role = "active") -> ArtifactRef | None:
        return self._repository.artifact(model, role)

    def health(self, model: str, role: Role = "active") -> Health:
        return self._repository.health(model, role)

    def settle(self, model: str, role: Role = "active") -> None:
        self._repository.settle(model, role)
        self._changed()

    def _fell_back(self, broken: ServedModel, now: ServedModel) -> None:
        """A version on trial broke, and the one before it serves again: its update will find that out and end."""
        code, _, detail = broken.failure.partition(": ")
        detail = f"{broken.manifest.version} is broken ({detail}); {now.manifest.version} serves again"
        log.error("%s: %s", broken.manifest.model, detail)
        self.replaced(broken)
        self.begun(now)
        self._alarm(broken.manifest.model, code, detail)
        self._changed()


class Daemon:
    """One device. Composes; decides nothing."""

    def __init__(self, config: Config, log_lines: deque[str]) -> None:
        self.config = config
        self.log_lines = log_lines
        self._affinity = Affinity(config.serving.cpus)
        self.state = open_state_to_serve(config.state_dir)
        self.profile = DeviceProfile(profiles=(), arch="", engines={})
        self.versions: Mapping[str, str] = {"edgewright": version("edgewright"), "python": platform.python_version()}
        load, load_trial = loaders(config.serving)
        self._repository = Repository(
            load=lambda *artifact: self._affinity.bound(lambda: load(*artifact)),
            load_trial=load_trial and (lambda *artifact: self._affinity.bound(lambda: load_trial(*artifact))),
            shadow=ShadowSettings(cpu_permille=config.serving.shadow_cpu_permille),
        )
        self._live = Live(self._repository, self._on_served, self._on_alarm)
        self._engines = EngineNotes(config.state_dir)
        self._supervisor = supervised_by()
        self._notifier = Notifier(self._supervisor.address)
        self._alarms: list[tuple[str, str, str]] = []
        self._left_out: Mapping[str, HoldBack] = {}
        self._updater: Updater | None = None
        self._agent: Agent | None = None
        self._stop: Callable[[], object] = lambda: None
        self._wants_restart = False
        self._is_open = False

    async def run(self) -> bool:
        """From the count of this start to the orderly stop. Returns whether a restart was asked for."""
        number = self._count_start()
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, stopping.set)
        self._left_out = open_active(self.state.store, self.state.slots, self._live, self._on_alarm)
        self._is_open = True
        self._on_served()
        try:
            stored = stored_models(self.state.slots, self.state.store, self._live)
            self._affinity.bind()
            if self.config.stream.broker:
                check_stream(self.config.stream)
            server = await serve(self._repository, self.config.serving, self.config.limits, stored)
        except (ConfigError, ExtraMissingError):
            self._wind_down()  # a port in use is no crash of the version that would have served
            raise
        log.info("start %d serves %s", number, ", ".join(self.state.slots.lanes()) or "nothing yet")
        streaming = self._make_stream(server.inference)
        if streaming is not None:
            server.show(("edgewright_stream_messages_total", "Messages of the stream by outcome.", streaming.counts))
        joining = threading.Thread(target=self._join, args=(boot_id(number),), name="start-up", daemon=True)
        joining.start()
        watchdog = self._make_watchdog(loop)
        watchdog.start()
        self._notifier.ready(self._describe())
        mending = asyncio.create_task(self._await_disk()) if self.state.refused else None
        await stopping.wait()
        log.info("stopping")
        if mending is not None:
            mending.cancel()
        self._notifier.stopping(self.config.serving.drain_s + 3 * STOP_S)
        if streaming is not None:
            await streaming.stop(STOP_S)
        await server.drain()
        watchdog.stop()
        await asyncio.to_thread(joining.join)
        await asyncio.to_thread(self._wind_down)
        return self._wants_restart

    def _count_start(self) -> int:
        """Count this start and settle interrupted updates. A disk that takes no writes costs the count, not the service."""
        if stuck := take_reason(self.state.directory):
            log.error("the last run was ended because it stood still: %s", stuck)
            self._alarms.append(("", StuckError.code, stuck))
        if self.state.begun_anew:
            self._alarms.append(("", StoreDamagedError.code, "state.db was damaged and is begun anew"))
        if self.state.refused:
            self._alarms.append(("", StoreError.code, f"no updates until the disk takes writes: {self.state.refused}"))
        try:
            number, was_clean = self.state.store.begin_boot()
            recover_jobs(self.state.store, self.state.slots, clean=was_clean)
        except (StoreError, OSError) as error:
            log.exception("this start is not counted; serving what the slots hold")
            self._alarms.append(("", StoreError.code, str(error)))
            return 0
        return number

    # -- what the agent asks of its host

    def delegate(self, task: Task, request: Request, timeout_s: float) -> Reply:
        return delegate(task, request, timeout_s)

    def models(self) -> tuple[ServedModel, ...]:
        return self._repository.models()

    def held_back(self) -> Mapping[str, HoldBack]:
        """Why something wanted does not start, or something installed does not serve, by lane."""
        left_out = {lane: why for lane, why in self._left_out.items() if self._live.artifact(*parts_of(lane)) is None}
        return {**left_out, **(self._updater.held_back if self._updater is not None else {})}

    def desired_changed(self) -> None:
        if self._updater is not None:
            self._updater.wake()

    def restart(self) -> None:
        self._wants_restart = True
        self._stop()

    # -- start and stop of what serving does not wait for

    def _join(self, boot: int) -> None:
        """The updater, and the agent if this device belongs to a fleet. No updater on state that would not outlive a step."""
        self._affinity.release()
        self.profile = detect_profile(self.config.profile)
        if not self.state.refused:
            self._updater = self._make_updater()
        try:
            self._agent = self._make_agent(boot)
        except DaemonError as error:
            log.error("this device stays off the line: %s", error)
        if self._agent is not None:
            self._live.replaced = self._agent.windows.close
            self._live.begun = self._agent.windows.begin
            for model, code, detail in self._alarms:
                self._agent.journal.note("slot", code, detail, model=model)
            self._agent.start()
        if self._updater is not None:
            self._updater.start()

    async def _await_disk(self) -> None:
        """Start again, with updates, once the disk takes writes."""
        while True:
            await asyncio.sleep(DISK_LOOK_S)
            if await asyncio.to_thread(takes_writes, self.state.directory):
                log.info("the disk takes writes again")
                self.restart()
                return

    def _make_stream(self, inference: Inference) -> StreamStarter | None:
        if not self.config.stream.broker:
            return None
        return StreamStarter(self.config.stream, self.config.limits, self._repository, inference)

    def _make_updater(self) -> Updater:
        actions = Actions(
            self.state,
            self._live,
            delegate,
            profile=self.profile,
            bounds=self.config.update,
            settings=lambda: wanted_settings(self.state.store),
        )
        machine = Machine(actions.table(), self.state.store.save_job, self._on_step)
        return Updater(self.state, machine, self._live, self._on_change)

    def _make_agent(self, boot: int) -> "Agent | None":
        identity = read_identity(self.state.directory)
        if identity is None or not identity.is_enrolled:
            log.info("this device belongs to no fleet; it serves what is installed on it")
            return None
        from runtime.agent.agent import Agent  # paho: memory and time that serving does not need

        return Agent(self, identity, boot)

    def _on_step(self, job: Job) -> None:
        log.info("update of %s to %s: %s %s", job.lane, job.artifact.version, job.state, job.error_code)
        if self._agent is not None:
            self._agent.note_step(job)

    def _make_watchdog(self, loop: asyncio.AbstractEventLoop) -> Watchdog:
        serving, update = self.config.serving, self.config.update
        granted_s = self._supervisor.watchdog_s
        # An updater's round is at worst one long step of every kind.
        longest_s = float(update.verify_timeout_s + update.test_timeout_s + update.fetch_timeout_s)
        checks: list[Check] = [
            LoopPulse(loop, shortest(granted_s, serving.watchdog_s) / 2),
            stuck_in("the updater", lambda: self._updater.stuck_s() if self._updater else 0.0, longest_s),
            stuck_in("an inference", self._longest_inference_s, serving.engine_timeout_s),
        ]
        return Watchdog(checks, self._notifier, self.state.directory, granted_s=granted_s, own_s=serving.watchdog_s)

    def _longest_inference_s(self) -> float:
        """Of those in this process; one in a process of its own is ended when its time is up."""
        return max((served.stuck_s() for served in self._repository.models() if not served.is_apart), default=0.0)

    def _on_served(self) -> None:
        if not self._is_open:  # while the slots are opened one by one, nothing is worth a write
            return
        self._engines.note(self._repository.models())
        self._notifier.status(self._describe())

    def _describe(self) -> str:
        serving = ", ".join(f"{served.manifest.model} {served.manifest.version}" for served in self._repository.models())
        return f"serving {serving or 'nothing yet'}"

    def _on_alarm(self, model: str, code: str, detail: str) -> None:
        """For the fleet: at once where there is a line to it, else when there is."""
        if self._agent is None:
            self._alarms.append((model, code, detail))
        else:
            self._agent.journal.note("slot", code, detail, model=model)
        if self._updater is not None:
            self._updater.wake()

    def _on_change(self) -> None:
        if self._agent is not None:
            self._agent.report()

    def _wind_down(self) -> None:
        if self._updater is not None:
            self._updater.stop(STOP_S)
        if self._agent is not None:
            self._agent.stop()
        self._repository.close()
        try:
            self.state.store.end_boot()
        except StoreError:
            log.exception("this stop counts as a crash")
        self.state.store.close()
        self._notifier.close()


def boot_id(number: int) -> int:
    """The name of one start: its number on this device above 40 random bits.

    Unique even when state.db is lost, rising while it is not, and within the signed 64 bits of a database column.
    """
    return (number % (1 << _COUNTER_BITS)) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
