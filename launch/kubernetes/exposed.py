"""Which secrets a job file would show to whoever may look at the objects of its job. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edldist.secret_names import is_secret
from edldist_launch.plan.plan import Plan

__all__ = ["exposed"]


def exposed(plan: Plan) -> Iterator[str]:
    """A remark for each role whose ``env`` sets a secret: it stands in pods' specs and in a ConfigMap."""
    for role in plan.roles:
        names = sorted(name for name in role.environment if is_secret(name))
        if names:
            given = " ".join(f"--from-literal={name}=..." for name in names)
            yield (
                f"env of {role.name} sets {', '.join(names)}, which whoever may read pods or ConfigMaps of "
                f"the namespace would see. Leave that out, keep it in a Secret (kubectl create secret "
                f"generic NAME {given}), and name the Secret in kubernetes.secrets"
            )
