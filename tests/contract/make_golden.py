"""Writes the golden files of one release: `python -m tests.contract.make_golden 0.1`. Old folders are never rewritten."""

import sys
from pathlib import Path

from runtime.contract.canonical import MANIFEST_LIMIT, write_json, write_message
from tests.contract.samples import DOCUMENTS, MESSAGES

GOLDEN = Path(__file__).parent / "golden"


def main(release: str) -> None:
    folder = GOLDEN / release
    folder.mkdir(parents=True)
    for name, value in DOCUMENTS.items():
        (folder / f"{name}.json").write_bytes(write_json(value))
    for name, message in MESSAGES.items():
        (folder / f"{name}.msgpack").write_bytes(write_message(message, MANIFEST_LIMIT))


if __name__ == "__main__":
    main(sys.argv[1])
