"""The fleet dashboard: server-rendered pages over the store, live by server-sent events."""
