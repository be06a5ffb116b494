"""A job inside one process: coordinator and teacher workers in threads, over any transport."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import edldist
from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.server import Coordinator
from edldist.teacher.worker import TeacherWorker, WorkerOptions, load_teacher
from edldist.wire.zmq.transport import ZmqTransport


class LocalJob:
    """Starts roles in threads and ends them all; errors of a role are kept in ``errors``.

    Args:
        http: where the coordinator tells its status, if it is to.
        listener: is told the state of the job (see ``Coordinator``).
    """

    def __init__(self, transport=None, http=None, listener=None) -> None:
        self.transport = transport or ZmqTransport()
        self.errors: list[BaseException] = []
        self._coordinator = Coordinator(
            CoordinatorOptions(
                bind="tcp://127.0.0.1:0", http=http, heartbeat_interval_s=0.2, heartbeat_ttl_s=1.0
            ),
            self.transport,
            listener=listener,
        )
        self._threads = [self._spawn(self._coordinator.run)]
        self.address = self._coordinator.wait_ready()
        self.http_address = self._coordinator.http_address
        self.workers: list[TeacherWorker] = []
        self.loaders: list[edldist.DistillLoader | edldist.LabelRequests] = []

    def teacher(self, model: str = "identify", **options) -> TeacherWorker:
        reference = model if ":" in model else f"tests.models:{model}"
        options = {"device": "cpu", "model": reference} | options
        settings = WorkerOptions(coordinator=self.address, **options)
        worker = TeacherWorker(settings, load_teacher(settings), self.transport)
        self.workers.append(worker)
        self._threads.append(self._spawn(worker.run))
        return worker

    def loader(self, data_loader, inputs=None, **options) -> edldist.DistillLoader:
        """A loader that compares no workers, unless it is told to: tests play workers, and count passes."""
        options = {"agreement": "off"} | options
        loader = edldist.DistillLoader(
            data_loader, inputs, coordinator=self.address, transport=self.transport, **options
        )
        self.loaders.append(loader)
        return loader

    def requests(self, inputs=None, **options) -> edldist.LabelRequests:
        """What a loop asks for labels of what it makes; compares no workers, unless it is told to."""
        options = {"agreement": "off"} | options
        requests = edldist.LabelRequests(
            inputs, coordinator=self.address, transport=self.transport, **options
        )
        self.loaders.append(requests)
        return requests

    def close(self) -> None:
        for loader in self.loaders:
            loader.close()
        for worker in self.workers:
            worker.drain()
        coordinator, *workers = self._threads
        for thread in workers:
            thread.join(20)
        self._coordinator.stop()  # last, so that goodbyes are heard and need not linger
        coordinator.join(20)
        alive = [thread.name for thread in self._threads if thread.is_alive()]
        assert not alive, f"{alive} did not end"

    def _spawn(self, target) -> threading.Thread:
        def run() -> None:
            try:
                target()
            except BaseException as exc:
                self.errors.append(exc)

        thread = threading.Thread(target=run, name=f"test-{target.__qualname__}", daemon=True)
        thread.start()
        return thread


@contextlib.contextmanager
def local_job(transport=None, **options) -> Iterator[LocalJob]:
    job = LocalJob(transport, **options)
    try:
        yield job
    finally:
        job.close()
