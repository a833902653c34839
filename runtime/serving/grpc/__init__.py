"""The Open Inference Protocol over gRPC: the optional transport of the extra `grpc`, imported only when configured."""

import os

# Since 1.80 grpc's Python library reads sockets in threads of its own, a hand-over more for every message each way: a bare
# round trip took a seventh longer. Without them the thread that waits for events reads. Where grpc no longer knows these
# names it says so on stderr, once. Read when grpc starts; what the operator has set goes first.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
