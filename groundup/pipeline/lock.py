"""One run folder, one run at a time: a second is told who is at work there, and stays out."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.config import UserError

logger = logging.getLogger("groundup")
NAME = ".lock"
_BUSY = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises UserError, naming the process that has it, when taken.

    The system frees it when this process ends, however it ends, so there is nothing to clean up
    after a kill. A POSIX record lock and not flock: a child process that outlives a killed parent
    inherits the latter, and would keep the run from being continued. It does not see a second run
    in the same process. Where the file system has no locks, a warning says so and the run goes on.
    """
    with open(folder / NAME, "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                file.seek(0)
                raise UserError(_refusal(folder, file.read())) from None
            if error.errno not in _NO_LOCKS:
                raise
            logger.warning(
                "The file system of %s has no locks (%s): make sure that no second run writes "
                "there.",
                folder,
                error.strerror,
            )
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
        file.flush()
        yield


def _refusal(folder: Path, holder: str) -> str:
    try:
        found = json.loads(holder)
        who = f"process {found['pid']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):  # it has the lock, and is about to write its name
        who = "another process"
    return (
        f"The run folder {folder} is in use by {who}: wait until it is done, stop it, or choose "
        "another folder with --run FOLDER."
    )
