"""Are keys made private, never overwritten, and each failure to open one explained?"""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tuf.api.metadata import Metadata, Root

from tests.toolchain.package.conftest import NOW
from toolchain.errors import KeysError
from toolchain.package.authorize import create_root
from toolchain.package.keys import KeyFolder
from toolchain.package.trusted import describe


def test_the_seed_gives_no_role_to_any_service(keys: KeyFolder) -> None:
    root = Metadata[Root].from_bytes(keys.seed.read_bytes())
    root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    offline = {keys.public_key(role).keyid for role in keys.roles()}
    assert all(set(role.keyids) <= offline for role in root.signed.roles.values())
    assert root.signed.consistent_snapshot


def test_only_the_owner_can_read_a_key(keys: KeyFolder) -> None:
    modes = {stat.S_IMODE(file.stat().st_mode) for file in keys.path.glob("*.key")}
    assert modes == {0o600}


def test_keys_are_never_overwritten(keys: KeyFolder) -> None:
    with pytest.raises(KeysError, match="exists already"):
        create_root(keys, NOW)


def test_an_interrupted_creation_is_taken_up_again(keys: KeyFolder) -> None:
    keys.seed.unlink()
    (keys.path / "targets.key").unlink()
    before = keys.public_key("root").keyid
    create_root(keys, NOW)
    assert keys.public_key("root").keyid == before


def test_a_key_others_can_read_is_refused(keys: KeyFolder) -> None:
    (keys.path / "root.key").chmod(0o644)
    with pytest.raises(KeysError, match="chmod 600"):
        keys.public_key("root")


def test_a_passphrase_encrypts_and_is_asked_for(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "secret", "open sesame")
    folder.find_or_create("root")
    assert b"ENCRYPTED" in (tmp_path / "secret/root.key").read_bytes()
    with pytest.raises(KeysError, match="EDGEWRIGHT_KEY_PASSPHRASE"):
        KeyFolder(tmp_path / "secret").public_key("root")
    with pytest.raises(KeysError, match="cannot be read"):
        KeyFolder(tmp_path / "secret", "wrong").public_key("root")


def test_a_passphrase_does_not_hinder_keys_in_the_clear(keys: KeyFolder) -> None:
    assert KeyFolder(keys.path, "anything").public_key("root").keyid == keys.public_key("root").keyid


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_named(keys: KeyFolder, content: bytes) -> None:
    (keys.path / "root.key").write_bytes(content)
    with pytest.raises(KeysError, match=r"root\.key"):
        keys.public_key("root")


def test_another_kind_of_key_is_refused(keys: KeyFolder) -> None:
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (keys.path / "root.key").write_bytes(pem)
    with pytest.raises(KeysError, match="not an Ed25519 key"):
        keys.public_key("root")


def test_a_role_name_cannot_leave_the_folder(keys: KeyFolder) -> None:
    with pytest.raises(KeysError, match="not the name of a role"):
        keys.find_or_create("../root")


def test_a_folder_without_the_key_says_which_one_is_wanted(keys: KeyFolder) -> None:
    with pytest.raises(KeysError, match="abcdef123456"):
        keys.signer("root", ["abcdef1234567890"])


def test_a_summary_opens_no_private_key(keys: KeyFolder) -> None:
    for file in keys.path.glob("*.key"):
        file.write_bytes(b"unreadable")
    roles = {role.name: role for role in describe(keys).roles}
    assert (roles["root"].version, roles["root"].is_held, roles["targets"].version) == (1, True, 0)
