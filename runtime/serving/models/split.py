"""Which requests belong to a share of the traffic?

By key, the same one always goes the same way, on every device and after every start: its place is the first 8 bytes of
BLAKE2b(model, 0 byte, key), big-endian, scaled to 0..9999, and those below the share belong to it. So a share that grows
keeps the keys it had. Without a key requests take turns: of every 10,000 exactly `share`, one at a place of its own in
each of as many equal stretches, so that traffic with a rhythm of its own cannot fall in step with the choice.
"""

import random
from collections.abc import Iterator
from hashlib import blake2b
from itertools import cycle

from runtime.contract.deployment import SHARE_WHOLE

_PLACE_BYTES = 8
_SEED = 7


def holds_key(model: str, key: str, share: int) -> bool:
    """Whether this key belongs to a share, out of SHARE_WHOLE, of a model's traffic."""
    digest = blake2b(f"{model}\0{key}".encode("utf-8", "surrogatepass"), digest_size=_PLACE_BYTES).digest()
    return int.from_bytes(digest, "big") * SHARE_WHOLE >> 8 * _PLACE_BYTES < share


def turns(share: int) -> Iterator[bool]:
    """Endless turns, True for a share of them out of SHARE_WHOLE. `next` on it is safe from several threads."""
    places = random.Random(_SEED)
    chosen = [False] * SHARE_WHOLE
    for index in range(share):
        start, end = index * SHARE_WHOLE // share, (index + 1) * SHARE_WHOLE // share
        chosen[places.randrange(start, end)] = True
    return cycle(chosen)  # one step of C, hence no lock and 30 ns a request
