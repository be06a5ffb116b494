"""The job file: what it may say, and how it is read and written.

``load_job`` reads YAML, applies ``--set`` overrides and validates; ``dump_job`` writes the
resolved job so that it loads back equal. Nothing here imports torch.
"""

from edldist.config.argument import dump_argument, parse_argument
from edldist.config.file import dump_job, job_schema, load_job
from edldist.config.job import CheckpointConfig, CoordinatorConfig, GraceConfig, JobConfig, ScriptConfig
from edldist.config.kubernetes import KubernetesConfig, PlacementConfig, VolumeConfig
from edldist.config.label import LabelConfig
from edldist.config.resources import ResourcesConfig
from edldist.config.slurm import SlurmConfig, SlurmRoleConfig
from edldist.config.store import StoreConfig
from edldist.config.student import StudentConfig
from edldist.config.teacher import ReplicaRange, TeacherConfig, check_codec_name

__all__ = [
    "CheckpointConfig",
    "CoordinatorConfig",
    "GraceConfig",
    "JobConfig",
    "KubernetesConfig",
    "LabelConfig",
    "PlacementConfig",
    "ReplicaRange",
    "ResourcesConfig",
    "ScriptConfig",
    "SlurmConfig",
    "SlurmRoleConfig",
    "StoreConfig",
    "StudentConfig",
    "TeacherConfig",
    "VolumeConfig",
    "check_codec_name",
    "dump_argument",
    "dump_job",
    "job_schema",
    "load_job",
    "parse_argument",
]
