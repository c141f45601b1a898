"""Stand-in for a process that owns an embedded PostgreSQL: start one, say where, wait.

Run as `python postgres_owner.py FOLDER USER THREAD`; root may name the user to become.
"""

from __future__ import annotations

import os
import pwd
import sys
import threading
from pathlib import Path

import psycopg

from async_jobs.embedded.postgres import PostgresServer


def own(folder: str, user: str, thread: str) -> None:
    """Own a server until our input ends (or we are killed)."""
    if user != pwd.getpwuid(os.geteuid()).pw_name:
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    server = PostgresServer(Path(folder), settings="fast")
    if thread == "main":
        server.start()
    else:
        other = threading.Thread(target=server.start)
        other.start()
        other.join()
    with psycopg.connect(server.socket_dsn) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        conn.execute("INSERT INTO kept VALUES (1)")
    sys.stdout.write(f"{server.pid} {server.data_dir}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    own(*sys.argv[1:])
