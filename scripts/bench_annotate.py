"""Measure the annotation server at published size: python scripts/bench_annotate.py --images 2975 --picks 1026.

Makes a label store with one round of random windows, serves it from a process of its own, and lets four clients answer
at a steady pace. Prints the figures of docs/performance.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from ripu.annotate.images import Images
from ripu.annotate.server import Server, make_app
from ripu.annotate.session import Session
from ripu.labelstore import ImagePicks, LabelStore, TargetImage

SIZE = (1024, 2048)
CLASSES = [f"class {number}" for number in range(19)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2975)
    parser.add_argument("--picks", type=int, default=1026, help="picks per image")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rate", type=float, default=20, help="answers per second and client")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, help="folder for the store (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = arguments.out or Path(temporary)
        if not (run / "labels").exists():
            make_store(run, arguments.images, arguments.picks)
        return measure(run, arguments.clients, arguments.rate, arguments.seconds)


def make_store(run: Path, num_images: int, num_picks: int) -> None:
    rows, columns = np.meshgrid(np.arange(1, SIZE[0], 8), np.arange(1, SIZE[1], 8), indexing="ij")
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1)
    rng = np.random.default_rng(0)
    images = [TargetImage(f"city/{number:06d}", *SIZE) for number in range(num_images)]
    with LabelStore.create(run / "labels", images, CLASSES) as store:
        spec = store.begin_round(0, 10, num_picks, reveal_radius=1, suppress_radius=2)
        store.add_round(
            spec,
            (
                ImagePicks(
                    image.image_id,
                    centres[rng.permutation(len(centres))[:num_picks]],
                    np.sort(rng.random(num_picks).astype(np.float32))[::-1],
                )
                for image in images
            ),
        )


def serve(run: Path, sock: socket.socket, ready: int) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    session = Session(run, LabelStore.open(run / "labels"), [(0, 0, 0)] * len(CLASSES))
    app = make_app(session, Images(session.store, lambda number: picture.copy()), {"key": None})
    os.write(ready, b"1")
    Server(app, sock=sock).run()


class Client:
    """One annotator on one connection."""

    def __init__(self, port: int, by: str) -> None:
        self.connection, self.by = http.client.HTTPConnection("127.0.0.1", port, timeout=60), by
        self.times: dict[str, list[float]] = {"next": [], "post": [], "stats": []}
        self.sent = 0

    def request(self, kind: str, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
        began = time.perf_counter()
        self.connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.connection.getresponse()
        data = answer.read()
        self.times[kind].append(time.perf_counter() - began)
        assert answer.status == 200, data
        return json.loads(data)

    def work(self, rate: float, seconds: float) -> None:
        end, due = time.monotonic() + seconds, time.monotonic()
        queue: list[Any] = []
        while time.monotonic() < end:
            if not queue:
                queue = self.request("next", "GET", f"/api/next?n=16&by={self.by}")["questions"]
                if not queue:
                    return
            one = queue.pop()
            answer = {
                "client_id": f"{self.by}-{self.sent}",
                "qid": one["qid"],
                "labels": [self.sent % 19] * len(one["pixels"]),
                "ms": 800,
            }
            self.request("post", "POST", "/api/answers", {"by": self.by, "answers": [answer]})
            self.sent += 1
            if self.sent % 50 == 0:
                self.request("stats", "GET", "/api/stats")
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))


def measure(run: Path, num_clients: int, rate: float, seconds: float) -> int:
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # without it, asyncio leaves Nagle's delay on
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    port = sock.getsockname()[1]
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            serve(run, sock, writer)
        finally:
            os._exit(0)
    os.read(reader, 1)
    started = time.monotonic() - began
    clients = [Client(port, f"annotator {number}".replace(" ", "-")) for number in range(num_clients)]
    threads = [threading.Thread(target=client.work, args=(rate, seconds)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = Path(f"/proc/{child}/status").read_text() if Path("/proc").exists() else ""
    peak = next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), float("nan"))
    stats = clients[0].request("stats", "GET", "/api/stats")
    os.kill(child, 15)
    os.waitpid(child, 0)
    session = Session(run, LabelStore.open(run / "labels"), [(0, 0, 0)] * len(CLASSES))
    names = [one.client_id for one in session.journal.answers(0)]
    session.close_journal()
    sent = sum(client.sent for client in clients)
    print(f"questions            {stats['questions']:,}")
    print(f"start                {started:.1f} s")
    print(f"memory of the server {peak:.0f} MB")
    for kind in ("next", "post", "stats"):
        times = sorted(1000 * one for client in clients for one in client.times[kind])
        p95 = times[int(0.95 * (len(times) - 1))]
        print(f"{kind:<20} {statistics.median(times):.1f} ms (median), {p95:.1f} ms (95 %), {len(times)} requests")
    print(f"answers              {sent} sent, {len(names)} stored, {len(names) - len(set(names))} twice")
    return 0 if sent == len(names) == len(set(names)) else 1


if __name__ == "__main__":
    sys.exit(main())
