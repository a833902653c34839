"""The device's inference endpoint: Open Inference Protocol v2 over HTTP, on TCP and on a unix socket."""
