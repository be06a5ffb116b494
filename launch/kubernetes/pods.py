"""One role's pods, filled in: image, resources, variables, volumes, and where they may run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edldist.config import KubernetesConfig, PlacementConfig, ResourcesConfig, VolumeConfig
from edldist.errors import ConfigError
from edldist.keys.open_link import INSECURE_VARIABLE, KEYS_VARIABLE
from edldist_launch.kubernetes.kustomization import Object
from edldist_launch.plan.plan import Role

__all__ = ["Pod", "literal", "quantity"]

_GPU, _KEYS = "nvidia.com/gpu", "keys"  # what the manifests call them


def quantity(amount: str) -> str:
    """An amount of memory as Kubernetes writes it: ``16GiB`` is ``16Gi``."""
    return amount.removesuffix("B")


class Pod:
    """The template of a role's pods, which it changes in place.

    Args:
        template: of a Deployment or a Job in the manifests.
        role: whose pods they are.
        placement: where they go.
        settings: what holds for all pods of the job.
        output: the claim of the job's output; None where an object store takes its place.
        folder: the job's folder in that claim.
    """

    def __init__(
        self,
        template: Object,
        role: Role,
        placement: PlacementConfig,
        settings: KubernetesConfig,
        output: str | None,
        folder: str,
    ) -> None:
        self._template = template
        self._spec: Object = template["spec"]
        (self._main,) = self._spec["containers"]
        self._main["workingDir"] = settings.workdir
        for container in (self._main, *self._spec.get("initContainers", ())):
            container |= {"image": placement.image, "imagePullPolicy": settings.pull_policy}
        if settings.pull_secrets:
            self._spec["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
        if settings.service_account is not None:
            self._spec["serviceAccountName"] = settings.service_account
        self._place(placement, role.resources.gpu_type)
        self._give(role.resources, placement.gpu_resource or _GPU)
        for each in self._spec["volumes"]:
            if each["name"] == "output":
                del each["persistentVolumeClaim"]
                each |= {"persistentVolumeClaim": {"claimName": output}} if output else {"emptyDir": {}}
        self._mount(placement.volumes or (), output, folder)
        if placement.secrets:
            self._main["envFrom"] = [{"secretRef": {"name": name}} for name in placement.secrets]
        self.set_variables(role.environment)

    @property
    def command(self) -> list[str]:
        """What the manifests run."""
        return list(self._main["command"])

    def run(self, command: Sequence[str]) -> None:
        """Run a command; words in the form ``$(VARIABLE)`` stand for that variable of the pod's own."""
        self._main["command"] = list(command)

    def set_variables(self, variables: Mapping[str, str]) -> None:
        """Give variables; they win over those of the manifests."""
        given = [{"name": name, "value": literal(value)} for name, value in variables.items()]
        kept = [each for each in self._main.get("env", ()) if each["name"] not in variables]
        self._main["env"] = [*kept, *given]

    def unseal(self) -> None:
        """Leave out the keys, and say that the job does without."""
        for each, key in ((self._spec, "volumes"), (self._main, "volumeMounts")):
            each[key] = [entry for entry in each[key] if entry["name"] != _KEYS]
        self._main["env"] = [each for each in self._main["env"] if each["name"] != KEYS_VARIABLE]
        self.set_variables({INSECURE_VARIABLE: "1"})

    def share_cpus(self, ranks: int | None, cpus: int | None) -> None:
        """Several ranks share the CPUs of a pod.

        Args:
            ranks: how many, or None where the pod itself will see.
            cpus: of the pod, or None where the manifests say it.
        """
        name = "OMP_NUM_THREADS"
        self._main["env"] = [each for each in self._main["env"] if each["name"] != name]
        if ranks is not None and cpus is not None:
            self.set_variables({name: str(max(1, cpus // ranks))})

    # --- filling --------------------------------------------------------------------------------

    def _place(self, placement: PlacementConfig, gpu_type: str | None) -> None:
        selector = dict(placement.node_selector or {})
        if gpu_type is not None and placement.gpu_label is not None:
            selector[placement.gpu_label] = gpu_type
        if selector:
            self._spec["nodeSelector"] = selector
        tolerations = [*self._spec.get("tolerations", ())]
        for each in tolerations:
            if each.get("key") == _GPU:
                each["key"] = placement.gpu_resource
        tolerations += [each.model_dump(exclude_none=True) for each in placement.tolerations or ()]
        if tolerations:
            self._spec["tolerations"] = tolerations
        if placement.priority_class is not None:
            self._spec["priorityClassName"] = placement.priority_class
        if placement.annotations:
            self._template["metadata"]["annotations"] = dict(placement.annotations)

    def _give(self, resources: ResourcesConfig, gpu_resource: str) -> None:
        asked: dict[str, Any] = self._main["resources"]["requests"]
        limits: dict[str, Any] = self._main["resources"]["limits"]
        if resources.cpus is not None:
            asked["cpu"] = str(resources.cpus)
        if resources.memory is not None:
            asked["memory"] = limits["memory"] = quantity(resources.memory)
        limits.pop(_GPU, None)
        if resources.gpus:
            limits[gpu_resource] = resources.gpus

    def _mount(self, volumes: Sequence[VolumeConfig], output: str | None, folder: str) -> None:
        """Let the pods see parts of claims.

        Args:
            output: the claim of the job's output, if it has one.
            folder: the job's folder in it.

        Raises:
            ConfigError: it has none, and a volume is to be of it.
        """
        names: dict[str, str] = {}
        for each in self._spec["volumes"]:
            if claim := each.get("persistentVolumeClaim"):
                names[claim["claimName"]] = each["name"]
        for volume in volumes:
            claim = volume.claim or output
            if claim is None:
                raise ConfigError(
                    f"kubernetes.volumes: {volume.path} is to be of the job's own claim, and it has "
                    "none beside its object_store: give claim"
                )
            if claim not in names:
                names[claim] = f"claim-{len(names)}"
                source = {"persistentVolumeClaim": {"claimName": claim}}
                self._spec["volumes"].append({"name": names[claim], **source})
            mount: Object = {"name": names[claim], "mountPath": volume.path}
            mount |= {"readOnly": True} if volume.read_only else {}
            if (path := _sub_path(volume, folder)) is not None:
                mount["subPath"] = path
            self._main["volumeMounts"].append(mount)


def _sub_path(volume: VolumeConfig, folder: str) -> str | None:
    """Which folder of its claim a volume is; in the job's own claim one beside the job's folder.

    Not one inside of it: Kubernetes makes a folder that is missing writable to the pods, but those above it
    not, and the job's own is made by a pod.
    """
    if volume.claim is not None:
        return volume.sub_path
    return folder if volume.sub_path is None else f"{folder}-{volume.sub_path.replace('/', '-')}"


def literal(text: str) -> str:
    """Text that stands for itself where Kubernetes would take ``$(NAME)`` for a variable."""
    return text.replace("$", "$$")
