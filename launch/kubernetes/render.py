"""From a plan to the objects that Kubernetes is given: the manifests of ``k8s``, filled in. Pure.

Nothing is written down here that the manifests say already. They get the job's names and numbers, and their
pods its commands and resources (``pods``); of what the base has one for its teacher, each teacher group gets
one of its own.
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edldist.config import KubernetesConfig, ReplicaRange, TeacherConfig, dump_job
from edldist.errors import ConfigError
from edldist_launch.kubernetes.kustomization import MANIFESTS, Object, apply_component, read_kustomization
from edldist_launch.kubernetes.names import Names
from edldist_launch.kubernetes.pods import Pod, literal, quantity
from edldist_launch.plan.plan import Plan, Role

__all__ = ["JOB", "KIND", "LAUNCHER", "NAME", "ROLE", "dump", "new_token", "render"]

LAUNCHER = ("edldist",)
"""Starts edldist in an image."""
JOB, KIND, ROLE = "edldist/job", "edldist/kind", "edldist/role"
"""Labels: whose an object is, of which kind of role, and of which role."""
NAME, GROUP = "edldist/name", "edldist/group"
"""Annotations: the job's name, and the teacher group's, as the job file has them."""
_SPACE = "kubernetes.io/metadata.name"
_FILE = Path("/etc/edldist/job.yaml")
_TOKEN = "/var/edldist/secret/http-token"
_SPOT_DRAIN_S = 15.0
"""A worker on a machine that is taken away at short notice has no longer to finish what it holds."""
_HEALTH = "*:7072"
_STARTS = "/tmp/starts"
"""In the pod's own folder, which is there for its next container, too."""
_MEMBERS, _STATUS = 7070, 7071


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


def dump(objects: Iterable[Object]) -> str:
    """Objects as YAML documents, with long texts in lines of their own."""
    text: str = yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _lines(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _lines)


def render(
    plan: Plan, namespace: str, token: str, keys: Mapping[str, str] | None = None, *, sealed: bool = True
) -> list[Object]:
    """All objects of a job, the student's last.

    Args:
        plan: with the paths of the image, and ``LAUNCHER``.
        namespace: where they are to be.
        token: what an autoscaler has to know to ask the coordinator.
        keys: files of the job's keys, of all roles, by their names; None while nobody has made them.
        sealed: whether the job has keys.

    Raises:
        ConfigError: what the job file asks for does not go together.
    """
    settings = plan.job.kubernetes or KubernetesConfig()
    if plan.job.prepare is not None and settings.object_store is not None and settings.claim is None:
        raise ConfigError(
            "prepare writes into the job's folder, which pods share by a claim: give kubernetes.claim beside "
            "kubernetes.object_store, or prepare: null"
        )
    return _Job(plan, settings, Names(plan.name), namespace, token, keys or {}, sealed).objects()


@dataclass(frozen=True)
class _Job:
    plan: Plan
    settings: KubernetesConfig
    names: Names
    namespace: str
    token: str
    keys: Mapping[str, str]
    sealed: bool

    def objects(self) -> list[Object]:
        prepared = ("prepare",) if self.plan.job.prepare is not None else ()
        watched = ("prometheus",) if self.settings.monitor else ()
        scaled = ("keda",) if any(self._is_scaled(teacher) for teacher in self.plan.job.served) else ()
        made = [*self._secrets(), self._file(), *self._claim()]
        if self.settings.network_policy:
            made += self._named(self._of("network", *scaled, *watched))
        made += self._named(self._of("monitor", *watched))
        for role in self.plan.roles:
            if role.kind == "prepare":
                made += self._prepare(role)
            elif role.kind == "coordinator":
                made += self._coordinator(role, prepared)
            elif role.kind == "teacher":
                made += self._teacher(role, prepared)
            else:
                made += [*self._end(prepared), *self._student(role, prepared)]
        for each in made:
            each["metadata"]["namespace"] = self.namespace
            each["metadata"].setdefault("annotations", {})[NAME] = self.plan.name
        return made

    # --- what a job has one of ------------------------------------------------------------------

    def _secrets(self) -> list[Object]:
        """The token and, of the same form, the keys, which lie in no file of the manifests."""
        (secret,) = self._named(self._of("secret"))
        secret["stringData"]["http-token"] = self.token
        if not self.sealed:
            return [secret]
        keys = copy.deepcopy(secret)
        keys["metadata"]["name"], keys["stringData"] = self.names.fixed("keys"), dict(self.keys)
        return [secret, keys]

    def _file(self) -> Object:
        (file,) = self._named(self._of("file"))
        file["data"]["job.yaml"] = dump_job(self.plan.job)
        return file

    def _claim(self) -> list[Object]:
        settings = self.settings
        if settings.claim is not None or settings.object_store is not None:
            return []
        (claim,) = self._named(self._of("output"))
        claim["spec"]["accessModes"] = [settings.storage_access]
        claim["spec"]["resources"]["requests"]["storage"] = quantity(settings.storage_size)
        if settings.storage_class is not None:
            claim["spec"]["storageClassName"] = settings.storage_class
        return [claim]

    # --- roles ------------------------------------------------------------------------------------

    def _prepare(self, role: Role) -> list[Object]:
        assert self.plan.job.prepare is not None
        objects = self._named(self._of("prepare", "prepare"))
        pod = self._pod(objects[0], role)
        pod.set_variables({"EDLDIST_JOB": self.plan.name})
        marker = f"{self.names.output}/{self._marker}"
        marked = pod.command[: 1 + pod.command.index(marker)]
        pod.run([*marked, *map(literal, self.plan.prepare_command("python"))])
        return objects

    def _end(self, prepared: Sequence[str]) -> list[Object]:
        """What waits for the end of the students, beside the coordinator."""
        objects = self._named(self._of("end", "end", *(("end-prepared",) if prepared else ())))
        pod = self._pod(objects[0], Role("coordinator", "end"))
        given_up = Path(f"{self.names.output}/{self._marker}.failed") if prepared else None
        pod.run(list(map(literal, self.plan.wait_command(self._address, given_up))))
        return objects

    def _coordinator(self, role: Role, components: Sequence[str]) -> list[Object]:
        objects = self._named(self._of("coordinator", *components))
        command = self.plan.coordinator_command(
            f"tcp://*:{_MEMBERS}", f"*:{_STATUS}", output=self.plan.output, job_file=_FILE
        )
        command += ["--scale-leaving", "any", "--http-token-file", _TOKEN]
        self._pod(_only(objects, "Deployment"), role).run(list(map(literal, command)))
        return objects

    def _teacher(self, role: Role, components: Sequence[str]) -> list[Object]:
        teacher, group = self.plan.teacher(role.name), role.name
        scaled, spot = self._is_scaled(teacher), self.settings.on_spot(group)
        placement = self.settings.of("teacher", group)
        wanted = {"gpu": role.resources.gpus > 0, "spot": spot, "keda": scaled}
        wanted["kueue"] = placement.queue is not None
        chosen = [*components, *(name for name in wanted if wanted[name])]
        objects = self._named(self._of("teacher", *chosen), group)
        deployment = _only(objects, "Deployment")
        if not scaled:
            deployment["spec"]["replicas"] = role.replicas.initial
        command = self.plan.teacher_command(
            teacher, "", self._address, _HEALTH, output=self.settings.object_store
        )
        command = list(map(literal, command))
        command[command.index("--id") + 1] = "$(POD_NAME)"
        counted = command.index("--attempt")
        command[counted : counted + 2] = ["--attempt-file", _STARTS]
        if spot:
            drain_s = min(self.plan.job.grace.drain_s, _SPOT_DRAIN_S)
            command[command.index("--drain-s") + 1] = repr(drain_s)
        self._pod(deployment, role).run(command)
        for each in objects:
            each["metadata"].setdefault("annotations", {})[GROUP] = group
            if each["kind"] == "ScaledObject":
                self._scaler(each, teacher)
        return objects

    def _scaler(self, scaler: Object, teacher: TeacherConfig) -> None:
        bounds = teacher.replicas
        assert isinstance(bounds, ReplicaRange)
        scaler["spec"] |= {"minReplicaCount": bounds.min, "maxReplicaCount": bounds.max}
        service = f"{self.names.fixed('coordinator')}.{self.namespace}.svc"
        scaler["spec"]["triggers"][0]["metadata"]["url"] = (
            f"http://{service}:{_STATUS}/scaling/{teacher.name}"
        )

    def _student(self, role: Role, components: Sequence[str]) -> list[Object]:
        placement = self.settings.of("student", "student")
        wanted = {"gpu": role.resources.gpus > 0, "kueue": placement.queue is not None}
        objects = self._named(self._of("student", *components, *(name for name in wanted if wanted[name])))
        (job,) = objects
        job["spec"]["parallelism"] = role.replicas.initial
        if self.settings.keep_s is not None:
            job["spec"]["ttlSecondsAfterFinished"] = self.settings.keep_s
        if wanted["kueue"]:
            job["metadata"]["annotations"]["kueue.x-k8s.io/job-min-parallelism"] = str(role.replicas.min)
        pod = self._pod(job, role)
        ranks = self.plan.job.student.nproc_per_node
        if ranks != 1:
            pod.share_cpus(ranks if isinstance(ranks, int) else None, role.resources.cpus)
        variables = self.plan.student_environment(self._address)
        if self.settings.object_store is not None:
            variables["EDLDIST_OUTPUT"] = self.settings.object_store
        pod.set_variables(variables)
        pod.run(list(map(literal, self.plan.student_command(self._address, _HEALTH))))
        return objects

    # --- the manifests ------------------------------------------------------------------------------

    def _of(self, kind: str, *components: str) -> list[Object]:
        """The objects of one kind of role, with what components change in them and add to them."""
        objects = _with_kind(read_kustomization(MANIFESTS / "base"), kind)
        for component in components:
            objects = _with_kind(apply_component(objects, component), kind)
        return objects

    def _named(self, objects: list[Object], group: str | None = None) -> list[Object]:
        """The same objects under the job's names, with its labels."""
        names = {**self.names.of_base(group), "/.prepared": f"/{self._marker}"}
        labels = {JOB: self.names.label} | ({} if group is None else {ROLE: self.names.role(group)})
        spaces = {"keda": self.settings.autoscaler_namespace, "monitoring": self.settings.monitor_namespace}
        return [_renamed(each, names, labels, spaces) for each in objects]

    def _pod(self, owner: Object, role: Role) -> Pod:
        """The pods of a Deployment or a Job, filled with all that does not depend on what they run."""
        settings = self.settings
        placement = settings.of(role.kind, role.name)
        if placement.queue is not None:
            owner["metadata"]["labels"] |= {
                key: placement.queue for key in owner["metadata"]["labels"] if key.endswith("/queue-name")
            }
        spec = owner["spec"]["template"]["spec"]
        if role.kind in ("teacher", "student"):
            spot = role.kind == "teacher" and settings.on_spot(role.name)
            kill_s = math.ceil(self.plan.job.grace.kill_s)
            notice_s = spec["terminationGracePeriodSeconds"] if spot else kill_s
            spec["terminationGracePeriodSeconds"] = min(kill_s, notice_s)
        output = settings.claim
        if output is None and settings.object_store is None:
            output = self.names.fixed("output")
        pod = Pod(owner["spec"]["template"], role, placement, settings, output, self.names.label)
        if not self.sealed and role.kind != "prepare":
            pod.unseal()
        return pod

    @property
    def _marker(self) -> str:
        """The file that says that this submission's preparation is done, and not an earlier one's."""
        return f".prepared-{hashlib.sha256(self.token.encode()).hexdigest()[:8]}"

    @property
    def _address(self) -> str:
        return f"tcp://{self.names.fixed('coordinator')}:{_MEMBERS}"

    def _is_scaled(self, teacher: TeacherConfig) -> bool:
        return self.settings.autoscaler is not None and isinstance(teacher.replicas, ReplicaRange)


def _with_kind(objects: list[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["metadata"]["labels"][KIND] == kind]


def _only(objects: list[Object], kind: str) -> Object:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def _renamed(
    value: Any, names: Mapping[str, str], labels: Mapping[str, str], spaces: Mapping[str, str]
) -> Any:
    """A value of the manifests with names and labels exchanged, wherever they stand in it.

    Args:
        names: of objects.
        labels: values by their keys.
        spaces: namespaces that a network policy lets in.
    """
    if isinstance(value, dict):
        exchanged = {key: labels.get(key, each) for key, each in value.items()}
        if _SPACE in value:
            exchanged[_SPACE] = spaces[value[_SPACE]]
        return {key: _renamed(each, names, labels, spaces) for key, each in exchanged.items()}
    if isinstance(value, list):
        return [_renamed(each, names, labels, spaces) for each in value]
    if isinstance(value, str):
        known = "|".join(map(re.escape, names))
        return re.sub(rf"({known})(?![a-z0-9-])", lambda found: names[found[1]], value)
    return value
