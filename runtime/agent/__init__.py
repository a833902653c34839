"""The device's line to the fleet: MQTT connection, durable outbox, desired states, commands and reports."""
