"""The cluster's names: ``python -m ... ADDRESS``, with KUBECONFIG set, answers UDP questions on port 53.

``SERVICE.NAMESPACE.svc.cluster.local`` is that Service's address. A headless one, which has several, and
every other name is not there.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from pathlib import Path

from tests.clusters.kubernetes.api import Api

ZONE = ["svc", "cluster", "local"]
ADDRESS_RECORD, NO_SUCH_NAME = 1, 3
TTL_S = 1


def address(name: str, api: Api) -> str | None:
    """The address of a Service, by its whole name; None where there is none."""
    service, _, rest = name.rstrip(".").lower().partition(".")
    namespace, _, zone = rest.partition(".")
    if zone.split(".") != ZONE:
        return None
    try:
        found = api.ask(f"/api/v1/namespaces/{namespace}/services/{service}")["spec"].get("clusterIP")
    except OSError:  # not there, for one
        return None
    return None if found in (None, "None") else str(found)


def answer(question: bytes, api: Api) -> bytes:
    """The answer to one packet.

    Raises:
        IndexError, struct.error, UnicodeDecodeError: it is no question.
    """
    at, labels = 12, []
    while size := question[at]:
        labels.append(question[at + 1 : at + 1 + size].decode())
        at += 1 + size
    (kind,) = struct.unpack_from(">H", question, at + 1)
    found = address(".".join(labels), api)
    records = b""
    if found is not None and kind == ADDRESS_RECORD:
        record = struct.pack(">HHHIH", 0xC00C, ADDRESS_RECORD, 1, TTL_S, 4)  # of the name at byte 12
        records = record + socket.inet_aton(found)
    flags = 0x8580 | (NO_SUCH_NAME if found is None else 0)
    head = struct.pack(">HHHHH", flags, 1, 1 if records else 0, 0, 0)
    return question[:2] + head + question[12 : at + 5] + records


def main() -> None:
    api = Api(Path(os.environ["KUBECONFIG"]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((sys.argv[1], 53))
        while True:
            packet, peer = listener.recvfrom(1500)
            try:
                listener.sendto(answer(packet, api), peer)
            except (IndexError, struct.error, UnicodeDecodeError):
                continue


if __name__ == "__main__":
    main()
