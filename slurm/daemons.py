"""The command lines of the programs that a lab is made of."""

from __future__ import annotations

from pathlib import Path

# A throw-away database need not survive a power cut, and waiting for a busy disk costs seconds.
UNSAFE_BUT_FAST = (
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-innodb-doublewrite",
    "--sync-frm=0",
)


def munged(folder: Path) -> list[str]:
    """Who says that a user is who he claims to be."""
    return [
        "munged",
        f"--socket={folder}/run/munge.sock",
        f"--key-file={folder}/munge.key",
        f"--pid-file={folder}/run/munged.pid",
        f"--log-file={folder}/log/munged.log",
        f"--seed-file={folder}/run/munge.seed",
    ]


def mariadb_install(folder: Path, user: str) -> list[str]:
    """What makes an empty database; its root is whoever may enter the directory."""
    return [
        "mariadb-install-db",
        *_database(folder, user),
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
    ]


def mariadbd(folder: Path, user: str) -> list[str]:
    """The database, in a session of its own: Ctrl-C in the terminal that started the lab must not reach it."""
    return [
        *("setsid", "--fork", "mariadbd"),
        *_database(folder, user),
        f"--socket={mariadb_socket(folder)}",
        f"--pid-file={folder}/run/mariadbd.pid",
        f"--log-error={folder}/log/mariadbd.log",
        "--skip-networking",
        "--innodb-lock-wait-timeout=900",
    ]


def mariadb_socket(folder: Path) -> Path:
    """Where the database listens."""
    return folder / "db" / "mariadb.sock"


def _database(folder: Path, user: str) -> list[str]:
    return ["--no-defaults", f"--datadir={folder}/db", f"--user={user}", *UNSAFE_BUT_FAST]
