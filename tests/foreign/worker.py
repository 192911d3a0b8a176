"""The owner's label worker, and the command that stops and starts it. Nothing of this project.

``python worker.py run|status|stop|start FOLDER``; ``FOLDER/worker.json`` says where it works. It
moves what lies directly under ``pending/``, oldest first, and never looks into deeper keys: that
is what is wrong with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_END_S = 30.0


def run(folder: Path) -> None:
    """Move labels until a SIGTERM; the pass under way is finished first."""
    from minio import Minio  # only here: its control is called often

    config = json.loads((folder / "worker.json").read_text("utf-8"))
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    pid = folder / "worker.pid"
    pid.write_text(str(os.getpid()))
    client = Minio(config["endpoint"], *config["keys"], secure=False, region="us-east-1")
    try:
        while not end.wait(config["every_s"]):
            move_oldest(client, config, folder / "moves.jsonl")
    finally:
        pid.unlink()


def move_oldest(client: Any, config: dict[str, Any], moves: Path) -> None:
    """Move one label, tell fulfillment-service, and write down when."""
    from minio.commonconfig import CopySource

    bucket, times = config["bucket"], []
    found = client.list_objects(bucket, prefix="pending/")  # not recursive
    keys = [str(item.object_name) for item in found if not item.is_dir]
    if not (labels := sorted(key for key in keys if key.endswith(".pdf"))):
        return
    key = labels[0]
    times.append(time.time())
    to = key.replace("pending/", "ready/", 1)
    client.copy_object(bucket, to, CopySource(bucket, key))
    client.remove_object(bucket, key)
    times.append(time.time())
    with moves.open("a", encoding="utf-8") as log:
        log.write(json.dumps({"key": key, "began": times[0], "ended": times[1]}) + "\n")
    order = key.removeprefix("pending/").partition("-")[0]
    import ssl
    import urllib.request

    context = ssl.create_default_context(cafile=config["ca"])
    request = urllib.request.Request(
        f"{config['url']}/fulfillment/shipments/{order}/status",
        data=b'{"status": "READY_TO_SHIP"}',
        headers={"Authorization": f"Bearer {config['token']}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10, context=context).close()


def control(word: str, folder: Path) -> None:
    pid, program = folder / "worker.pid", [sys.executable, __file__, "run", str(folder)]
    if word == "start" and not pid.exists():
        with (folder / "worker.log").open("ab") as log:
            subprocess.Popen(
                program, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    if word == "stop" and pid.exists():
        os.kill(int(pid.read_text()), signal.SIGTERM)
    deadline = time.monotonic() + _END_S
    while word != "status" and pid.exists() != (word == "start"):
        if time.monotonic() > deadline:
            sys.exit(f"the worker did not {word}: {(folder / 'worker.log').read_text()[-500:]}")
        time.sleep(0.05)
    print("running" if pid.exists() else "stopped")


if __name__ == "__main__":
    _, action, place = sys.argv
    run(Path(place)) if action == "run" else control(action, Path(place))
