"""A job's objects as people see them: without its secrets, and with how to make these by hand. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edldist_launch.kubernetes.kustomization import Object

__all__ = ["secrets_by_hand", "without_secrets"]


def without_secrets(objects: Iterable[Object]) -> tuple[list[Object], list[Object]]:
    """The Secrets among objects, and the others."""
    listed = list(objects)
    secrets = [each for each in listed if each["kind"] == "Secret"]
    return secrets, [each for each in listed if each["kind"] != "Secret"]


def secrets_by_hand(secrets: Sequence[Object]) -> str:
    """Comment lines that say how somebody makes them who does not submit the job."""
    lines = ["# Without its secrets, which edldist submit makes. By hand, from a folder of edldist keygen:"]
    for each in secrets:
        name, space = each["metadata"]["name"], each["metadata"]["namespace"]
        if "http-token" in each["stringData"]:
            lines.append("#   (umask 077; head -c 24 /dev/urandom | base64 > http-token)")
            source = "http-token"
        else:
            source = "keys"
        lines.append(f"#   kubectl --namespace {space} create secret generic {name} --from-file={source}")
    return "".join(f"{line}\n" for line in lines)
