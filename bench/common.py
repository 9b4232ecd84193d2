"""What the benchmarks share: sides in processes of their own, alternating windows, one JSON result.

A machine's speed drifts while one measures it. So the sides of a comparison stay alive next to each
other and take turns in short windows: what slows the machine down slows all of them, and medians
over the windows cancel the rest. A process each keeps memory and threads apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groundup.config import UserError
from groundup.device import cpu_name, detect, measure_matmul
from groundup.files import write_json


class Worker:
    """A side of the comparison: `command` in its own process, asked by JSON lines through pipes.

    The process answers with `serve`. What it prints goes to a log that is shown when it fails.
    """

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by close()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises UserError when the process ends."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; its log says why
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise UserError(f"{self.name} ended early:\n{self.log.read()[-3000:]}")
        return json.loads(line)

    def close(self) -> None:
        """End the process and wait for it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
        self.log.close()


def serve(answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """The worker's side: answer JSON lines from standard input until it closes."""
    # Libraries print; only answers may reach the pipe.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        replies.write(json.dumps(answer(json.loads(line))) + "\n")
        replies.flush()


def machine() -> dict[str, Any]:
    """The machine of a measurement: processor, threads, fp32 and bf16 matmul and their roof."""
    policy = detect()
    # The best of three: a roof is what the machine can do, so disturbances only ever lower it.
    speeds = {
        dtype: round(max(measure_matmul.__wrapped__(dtype, 2048) for _ in range(3)), 1)
        for dtype in ("float32", "bfloat16")
    }
    return {
        "cpu": cpu_name(),
        "threads": policy.threads,
        "matmul_gflops": speeds,
        "roof_gflops": max(speeds.values()),
    }


def finish(result: Mapping[str, Any], path: Path | None) -> None:
    """Write the result where asked, and print it as the last line: one JSON document."""
    if path is not None:
        write_json(path, result)
    print(json.dumps(result), flush=True)
