"""The record of a process that holds a lock: its host, its number and its start, as JSON."""

import datetime
import json
import os
import socket


def own_record() -> str:
    """Returns the record of this process, which starts to hold a lock now."""
    started = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    return json.dumps({"host": socket.gethostname(), "process": os.getpid(), "started": started})


def describe(record: bytes | None) -> str:
    """Returns a phrase with the host, the process and the start; "another process" if they are unknown."""
    try:
        known = json.loads(record or b"")
        return f"process {known['process']} on {known['host']}, since {known['started']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def is_other_host(record: bytes | None) -> bool:
    """Returns whether a record is of another machine."""
    try:
        return json.loads(record or b"")["host"] != socket.gethostname()
    except (ValueError, KeyError, TypeError):
        return False
