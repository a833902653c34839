"""What the fleet's end waits for among the messages of devices; to be given to `FleetClient.wait`."""

import msgspec

from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import DeploymentState, Outcome, Reported
from runtime.contract.telemetry import Event, Result
from runtime.contract.topics import Channel


def settled(device: str, artifact: ArtifactRef, outcome: Outcome = Outcome.SUCCEEDED, rollout: str = "rollout-1"):
    """Accepts a report in which the newest update ended with this outcome for this artifact."""

    def accepts(sender, channel, _id, payload):
        if sender != device or channel is not Channel.REPORTED:
            return None
        report = msgspec.msgpack.decode(payload, type=Reported)
        for one in report.deployments:
            if one.wanted == artifact and one.outcome is outcome and one.state is DeploymentState.IDLE and one.rollout == rollout:
                return report, one
        return None

    return accepts


def event(device: str, code: str):
    """Accepts an event with this code."""

    def accepts(sender, channel, _id, payload):
        if sender != device or channel is not Channel.EVENT:
            return None
        found = msgspec.msgpack.decode(payload, type=Event)
        return found if found.code == code else None

    return accepts


def result(device: str, id: str):
    """Accepts the result of a command."""

    def accepts(sender, channel, found_id, payload):
        if sender == device and channel is Channel.RESULT and found_id == id:
            return msgspec.msgpack.decode(payload, type=Result)
        return None

    return accepts
