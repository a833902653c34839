"""Inference from an MQTT topic to another: the optional stream of the daemon, imported only when configured."""
