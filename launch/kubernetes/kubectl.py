"""The Kubernetes API, by ``kubectl``: it has the user's rights, and finds the cluster as the user does."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from edldist.config import KubernetesConfig
from edldist.errors import LaunchError
from edldist_launch.kubernetes.kustomization import Object

__all__ = ["Answer", "Kubectl", "ClusterRefusedError", "ClusterUnreachableError", "run_kubectl"]

REQUEST_S = 30
"""After so long without an answer of the API, a request is given up."""
MARGIN_S = 30
UNREACHABLE = (
    "Unable to connect to the server",
    "The connection to the server",
    "i/o timeout",
    "connection refused",
    "TLS handshake timeout",
    "context deadline exceeded",
    "Client.Timeout exceeded",
    "etcdserver: ",
    "EOF",
)

_NOWHERE = ("localhost:8080", "127.0.0.1:8080")
"""There ``kubectl`` looks when nothing tells it of a cluster."""
_NO_CONFIG = (
    "so kubectl says where it knows no cluster: is there a kubeconfig ($KUBECONFIG, ~/.kube/config), and a "
    "current context in it, or kubernetes.context?"
)
_LOG = re.compile(r"[EWI]\d{4} \d\d:")  # what kubectl's libraries note beside its own words

Answer = tuple[int, str, str]
"""Exit code, standard output and standard error of a program."""
Run = Callable[[Sequence[str], str], Answer]


class ClusterRefusedError(LaunchError):
    """The API answered, and will not."""


class ClusterUnreachableError(LaunchError):
    """The API did not answer: nobody knows what became of the request."""


def run_kubectl(arguments: Sequence[str], given: str) -> Answer:
    """Run ``kubectl`` on arguments and a text for its standard input.

    Raises:
        LaunchError: it is not installed, or does not end.
    """
    try:
        done = subprocess.run(
            ["kubectl", *arguments],
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=REQUEST_S + MARGIN_S,
        )
    except FileNotFoundError as exc:
        raise LaunchError("kubectl is not installed: jobs reach Kubernetes by it") from exc
    except subprocess.TimeoutExpired as exc:
        raise ClusterUnreachableError(
            f"kubectl {arguments[0]} did not end within {REQUEST_S + MARGIN_S} s"
        ) from exc
    return done.returncode, done.stdout, done.stderr


class Kubectl:
    """Requests in one namespace of one cluster.

    Every method raises ``ClusterRefusedError`` or ``ClusterUnreachableError`` with the API's own words.

    Args:
        context: of the kubeconfig; None for the current one.
        namespace: None for that of the context.
        run: ``kubectl``.
    """

    def __init__(self, context: str | None, namespace: str | None, run: Run = run_kubectl) -> None:
        self.context = context
        self._namespace = namespace
        self._run = run

    @classmethod
    def of(cls, settings: KubernetesConfig | None, run: Run = run_kubectl) -> Kubectl:
        """As a job file says."""
        settings = settings or KubernetesConfig()
        return cls(settings.context, settings.namespace, run)

    @cached_property
    def namespace(self) -> str:
        """The namespace, by its name."""
        if self._namespace is not None:
            return self._namespace
        view = ["config", "view", "--minify", "--output", "jsonpath={..namespace}"]
        code, out, _ = self._run([*self._context(), *view], "")
        return out.strip() or "default" if code == 0 else "default"

    def get(self, kinds: str, selector: str) -> list[Object]:
        """All objects of some kinds that carry labels.

        Args:
            kinds: as in ``pods,jobs.batch``.
            selector: as in ``edldist/job=digits``.
        """
        listed = json.loads(self._ask("get", kinds, "--selector", selector, "--output", "json"))
        found: list[Object] = listed["items"]
        return found

    def find(self, kind: str, name: str) -> Object:
        """One object."""
        found: Object = json.loads(self._ask("get", kind, name, "--output", "json"))
        return found

    def events(self, fields: str) -> list[Object]:
        """The namespace's events with that in their fields.

        Args:
            fields: as in ``type=Warning``.
        """
        listed = json.loads(self._ask("get", "events", "--field-selector", fields, "--output", "json"))
        found: list[Object] = listed["items"]
        return found

    def create(self, objects: Iterable[Object], *, dry_run: bool = False) -> list[Object]:
        """Make objects, one after the other; with ``dry_run`` only ask whether they could be made.

        Returns:
            What was made: of an object that is a ``List``, each of its items.
        """
        made = []
        for each in objects:
            options = ["--dry-run=server"] if dry_run else []
            words = ["create", "--filename", "-", "--output", "json", *options]
            made += _documents(self._ask(*words, given=json.dumps(each)))
        return made

    def patch(self, kind: str, name: str, change: Object, *options: str) -> None:
        """Merge a change into an object."""
        self._ask("patch", kind, name, "--type", "merge", "--patch", json.dumps(change), *options)

    def end_pods(self, selector: str, grace_s: int) -> None:
        """Tell pods to end within so many seconds."""
        self._ask("delete", "pods", "--selector", selector, "--wait=false", f"--grace-period={grace_s}")

    def delete(self, kinds: str, selector: str) -> None:
        """Remove all objects of some kinds that carry labels, and what they own; does not wait for that."""
        self._ask("delete", kinds, "--selector", selector, "--wait=false", "--ignore-not-found")

    def command(self, *words: str) -> list[str]:
        """The whole command line of a request that is read while it runs."""
        return ["kubectl", *self._context(), "--namespace", self.namespace, *words]

    def _context(self) -> list[str]:
        return [] if self.context is None else ["--context", self.context]

    def _ask(self, *words: str, given: str = "") -> str:
        common = [*self._context(), "--namespace", self.namespace, f"--request-timeout={REQUEST_S}s"]
        code, out, err = self._run([*words, *common], given)
        if code == 0:
            return out
        lines = [line.strip() for line in err.splitlines() if line.strip() and not _LOG.match(line)]
        said = " ".join(dict.fromkeys(lines)) or f"exit code {code}"
        if any(words in said for words in UNREACHABLE):
            hint = f" ({_NO_CONFIG})" if any(place in said for place in _NOWHERE) else ""
            raise ClusterUnreachableError(f"Kubernetes cannot be reached: {said}{hint}")
        raise ClusterRefusedError(f"Kubernetes refuses: {said}")


def _documents(text: str) -> list[Object]:
    """The JSON texts that follow each other in one."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        each, end = decoder.raw_decode(text)
        found.append(each)
        text = text[end:]
    return found
