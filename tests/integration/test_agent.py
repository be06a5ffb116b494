"""An elastic agent of its own process against a rendezvous in which another node dies."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.distributed.elastic.rendezvous import RendezvousParameters, api, c10d_rendezvous_backend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler, create_handler

from edldist_launch.agent import ahead_s
from edldist_launch.torchrun import prepare_environment, torchrun_command

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def store():
    yield dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def _agent(script: Path, port: int) -> subprocess.Popen[bytes]:
    command = torchrun_command(
        str(script), [], nnodes="1:2", rendezvous=f"127.0.0.1:{port}", run_id="job", ahead_s=ahead_s()
    )
    command = [part.replace("read_timeout=20", "read_timeout=3") for part in command]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    prepare_environment(environment)
    return subprocess.Popen(
        command,
        env=environment,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class _DeadError(Exception):
    pass


class _Dying:
    """A node that joins the rendezvous as its first, and dies before it says where to meet."""

    def __init__(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = RendezvousParameters(
            "c10d", f"127.0.0.1:{port}", "job", 1, 2, local_addr="0", is_host=0, last_call_timeout=30
        )
        backend, store = c10d_rendezvous_backend.create_backend(settings)
        self._handler: DynamicRendezvousHandler = create_handler(store, backend, settings)
        self.rank: int | None = None

        def die(rank: int, *_: object, **__: object) -> None:
            self.rank = rank
            self._handler._stop_heartbeats()
            raise _DeadError

        monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
        monkeypatch.setattr(api.RendezvousStoreInfo, "build", die)
        self._thread = threading.Thread(target=self._meet)
        self._thread.start()

    def _meet(self) -> None:
        with contextlib.suppress(_DeadError):
            self._handler.next_rendezvous()

    def join(self) -> None:
        self._thread.join(60)
        assert self.rank == 0, "it was to be the one who says where to meet"


def test_a_node_that_dies_while_nodes_meet_does_not_end_the_run(
    store: dist.TCPStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os; print('world', os.environ['WORLD_SIZE'])")
    dying = _Dying(store.port, monkeypatch)
    agent = _agent(script, store.port)
    dying.join()
    said = agent.communicate(timeout=60)
    assert agent.returncode == 1 and b"MASTER_ADDR" in said[1], said
    again = _agent(script, store.port)
    said = again.communicate(timeout=60)
    assert again.returncode == 0 and b"world 1" in said[0], said
