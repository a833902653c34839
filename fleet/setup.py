"""How does an empty folder become the home of a fleet?

Every step leaves alone what is there already, and the admin's token comes last: an initialisation that was cut short is
finished by running it again, and one that was finished is refused.
"""

from datetime import UTC, datetime
from pathlib import Path

from fleet.api.auth import hash_token, new_token
from fleet.config import CONFIG_NAME, Config
from fleet.errors import SetupError
from fleet.files import SECRET, make_folder, write_durably
from fleet.pki import Authority
from fleet.services import ADMIN_TOKEN, CA, KEYS, TUF, wall_clock_ms
from fleet.store.access import AccessRepository
from fleet.store.database import Database, read_meta, write_meta
from fleet.trust.keys import ServiceKeys
from fleet.trust.store import TrustStore

FLEET_KEY = "fleet.name"
ADMIN = "admin"

CONFIG_TEXT = """\
# The fleet's configuration; `fleet config show` prints every value with its origin.
[fleet]
name = "{name}"

[api]
host = "{api_host}"
port = {api_port}

[door]                      # where devices come in, over mutual TLS
host = "{door_host}"
port = {door_port}
names = [{names}]           # what its certificate is for; devices dial the first

[broker]
host = "{broker_host}"
port = {broker_port}
"""


def initialise(config: Config, root: bytes) -> Path:
    """Make the home that `config` names, trusting this public root; returns the file with the admin's API token.

    Raises SetupError when the home is complete already or belongs to another fleet, ContractError for an unsound root.
    """
    home = config.home
    token_file = home / ADMIN_TOKEN
    if token_file.exists():
        raise SetupError(f"{home} is the home of a fleet already; its admin token lies in {token_file}")
    make_folder(home, 0o700)
    keys = ServiceKeys(home / KEYS) if (home / KEYS / "director.key").exists() else ServiceKeys.create(home / KEYS)
    if not list((home / TUF / "metadata").glob("*.root.json")):
        TrustStore.create(home / TUF, root, keys)
    elif TrustStore(home / TUF, keys).pinned_root != root:
        raise SetupError(f"{home / TUF} was begun with another root; start over in an empty folder")
    if not (home / CA / "ca.key").exists():
        Authority.create(home / CA, config.fleet.name, datetime.now(UTC))
    if not (home / CONFIG_NAME).exists():
        write_durably(home / CONFIG_NAME, _config_text(config).encode())
    token = new_token()
    _fill_database(config, token)
    write_durably(token_file, f"{token}\n".encode(), SECRET)
    return token_file


def _fill_database(config: Config, token: str) -> None:
    database = Database(config.database_url)
    try:
        database.migrate()
        with database.write() as session:
            held = read_meta(session, FLEET_KEY)
            if held not in (None, config.fleet.name):
                raise SetupError(f"the database is that of fleet {held!r}, not {config.fleet.name!r}")
            write_meta(session, FLEET_KEY, config.fleet.name)
            access = AccessRepository(session)
            now_ms = wall_clock_ms()
            access.replace_token(ADMIN, hash_token(token), "admin", now_ms)
            access.record("fleet init", "admin", "fleet.init", config.fleet.name, detail={}, now_ms=now_ms)
    finally:
        database.close()


def _config_text(config: Config) -> str:
    return CONFIG_TEXT.format(
        name=config.fleet.name,
        api_host=config.api.host,
        api_port=config.api.port,
        door_host=config.door.host,
        door_port=config.door.port,
        names=", ".join(f'"{name}"' for name in config.door.names),
        broker_host=config.broker.host,
        broker_port=config.broker.port,
    )
