"""Open Inference Protocol v2 and Triton's extensions over HTTP/1.1."""
