"""Job files for tests: the least that one may say, all that it may say, and what it may not."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FULL", "MINIMAL", "UNKNOWN_KEYS", "WRONG_VALUES", "write_toy"]

MINIMAL = """\
name: digits
teachers:
  - model: examples.digits.models:teacher
student:
  script: student.py
"""

FULL = """\
name: full
deterministic: true
teachers:
  - {name: big, model: "a.b:c", weights: w.safetensors, replicas: {min: 0, max: 8}, device: "cuda:1",
     version: "7 b",
     batch_size: 7, codec: "dense:bf16", allow_nonfinite: true, env: {A: "1", B: 2}, compile: true,
     autocast: bf16, channels_last: true, dataset: "d:f", dataset_inputs: [0, mask], dataset_threads: 4,
     kwargs: {path: m, layers: [1, 2.5, null, {a: "1"}]}, outputs: [logits], vocabulary: v/tok}
  - {name: small, model: "a:c.d", replicas: 2}
student:
  script: s.py
  args: [--epochs, 5, --lr, 1e-4, "1e-4", "true", "no", "null", "~", "07", "1:4", "", "é\\n"]
  nnodes: 1:4
  nproc_per_node: 2
  env: {X: y}
label: {data: "d.s:f", kwargs: {split: train, sizes: [1, {a: null}]}, inputs: [image, 1], ids: index,
   batch_size: 32, shard_rows: 1000, num_workers: 2, nproc_per_node: 3, max_restarts: 0,
   resources: {cpus: 4}, env: {Y: z}}
checkpoint: {every_steps: null, keep: 1}
store: {path: "s3://b/kept", memory: 2GiB, disk: 1TiB, preprocessing: crop 224, data: "images, 2",
   read_only: true, only: false}
agreement: {max_nats: 0.5, max_relative: 0.02, every_s: 5}
coordinator: {heartbeat_ttl_s: 20, max_students_per_worker: 4}
trackers: [wandb, tensorboard]
prepare: {script: p.py, args: [1.5]}
slurm:
  partition: spot,gpu
  account: lab
  qos: low
  constraint: "a100|h100"
  gres: accel:2
  time_limit: 1-12:00
  nice: 100
  python: /opt/python
  setup: [module load cuda, "export A='b c'"]
  options: [--exclusive, "--mail-type=END,FAIL"]
  reservation: friday
  warn_s: 300
  requeue: false
  poll_s: 2.5
  coordinator: {partition: cpu, time_limit: "90"}
  student: {partition: gpu}
  prepare: {setup: []}
  teachers: {big: {constraint: h100, gres: "accel:fast:1"}}
kubernetes: {context: lab, namespace: research, image: "registry.example:5000/lab/job@sha256:abc",
   pull_policy: Always, pull_secrets: [registry], workdir: /opt/job, storage_class: shared,
   storage_size: 1TiB, storage_access: ReadWriteOnce, object_store: "s3://b/run", secrets: [s3],
   node_selector: {pool: gpu, "cloud.example/kind": ""},
   tolerations: [{}, {key: a/b, operator: Equal, value: "1", effect: NoExecute}], spot: false,
   gpu_resource: amd.com/gpu, gpu_label: amd.com/gpu.product,
   priority_class: low, queue: lab, volumes: [{path: /data, claim: images, sub_path: a/b, read_only: false}],
   annotations: {a/b: "c d"}, service_account: job, autoscaler: keda, autoscaler_namespace: k, monitor: true,
   monitor_namespace: m, network_policy: false, keep_s: null,
   prepare: {volumes: []}, coordinator: {queue: c}, student: {queue: q},
   teachers: {big: {spot: true}}}
"""

# Overrides of MINIMAL: the place that they are refused at, and a part of the reason.
WRONG_VALUES = [
    ("name=", "name", "None is not allowed"),
    ("name=../up", "name", "'../up' is not allowed"),
    ("name=.hidden", "name", "is not allowed"),
    ("agreement=on", "agreement", "'on' is not allowed; it must be a mapping, as in {max_nats: 0.1, "),
    ("agreement=false", "agreement", "every_s: 60}, or off"),
    ("agreement={max_nats: 0}", "agreement.max_nats", "0 is not allowed; it must be the most that two"),
    ("agreement={max_relative: x}", "agreement.max_relative", "a number above 0"),
    ("agreement={every_s: 0.001}", "agreement.every_s", "from 0.05 to 604800"),
    ("agreement={every_s: true}", "agreement.every_s", "True is not allowed"),
    ("store=kept", "store", "'kept' is not allowed; it must be a mapping with `path`"),
    ("store={}", "store.path", "missing"),
    ("store={path: ''}", "store.path", "it must be a folder, or a URL"),
    ("store={path: k, memory: 7}", "store.memory", "7 is not allowed; it must be a whole number with MiB"),
    (
        "store={path: k, disk: 1GB}",
        "store.disk",
        "`1GB` is no amount of memory: write a whole number with MiB",
    ),
    ("store={path: k, preprocessing: 1}", "store.preprocessing", "1 is not allowed; it must be text"),
    ("store={path: k, data: null}", "store.data", "None is not allowed; it must be text"),
    ("store={path: k, read_only: 1}", "store.read_only", "1 is not allowed; it must be true or false"),
    ("store={path: k, only: all}", "store.only", "'all' is not allowed; it must be true or false"),
    ("deterministic=1", "deterministic", "1 is not allowed; it must be true or false"),
    ("trackers=wandb", "trackers", "a list of tensorboard, wandb and mlflow, or null for those"),
    ("trackers=[comet]", "trackers[0]", "'comet' is not allowed"),
    ("trackers=true", "trackers", "True is not allowed"),
    ("teachers=[]", "teachers", "a list of one teacher or more"),
    ("teachers={}", "teachers", "a list of one teacher or more"),
    ("teachers.0=5", "teachers[0]", "5 is not allowed"),
    ("teachers.0.name=student", "teachers", "student is the name of another role"),
    ("teachers.0.name=a b", "teachers[0].name", "letters, digits"),
    ("teachers.0.name=7", "teachers[0].name", "7 is not allowed"),
    ("teachers.0.model=examples.digits", "teachers[0].model", "module:factory"),
    ("teachers.0.model=a-b:c", "teachers[0].model", "module:factory"),
    ("teachers.0.weights=3", "teachers[0].weights", "a path, follow:PATH or follow:URL, or null"),
    ("teachers.0.vocabulary=3", "teachers[0].vocabulary", "a path, or null"),
    ("teachers.0.replicas=0", "teachers[0].replicas", "0 is not allowed; it must be a whole number"),
    ("teachers.0.replicas=two", "teachers[0].replicas", "{min: M, max: N}"),
    ("teachers.0.replicas={min: 3, max: 2}", "teachers[0].replicas", "min must not exceed max"),
    ("teachers.0.replicas={min: -1, max: 2}", "teachers[0].replicas.min", "-1 is not allowed"),
    ("teachers.0.replicas={min: 0, max: 0}", "teachers[0].replicas.max", "from 1 to 10000"),
    ("teachers.0.replicas={min: 1}", "teachers[0].replicas.max", "missing"),
    ("teachers.0.replicas={min: 1, max: 3, start: 4}", "teachers[0].replicas", "start 4 is not within min 1"),
    ("teachers.0.replicas={min: 2, max: 3, start: 1}", "teachers[0].replicas", "start 1 is not within min 2"),
    ("teachers.0.replicas={min: 0, max: 3, start: 0}", "teachers[0].replicas.start", "from 1 to 10000"),
    ("teachers.0.device=GPU 0", "teachers[0].device", "cuda:N"),
    ("teachers.0.batch_size=0", "teachers[0].batch_size", "from 1 to 1000000000, or auto"),
    ('teachers.0.batch_size="64"', "teachers[0].batch_size", "'64' is not allowed"),
    ("teachers.0.batch_size=true", "teachers[0].batch_size", "True is not allowed"),
    ("teachers.0.batch_size=1.5", "teachers[0].batch_size", "1.5 is not allowed"),
    (
        "teachers.0.batch_size=automatic",
        "teachers[0].batch_size",
        "a whole number from 1 to 1000000000, or auto",
    ),
    ("teachers.0.compile=1", "teachers[0].compile", "true or false"),
    ("teachers.0.autocast=fp32", "teachers[0].autocast", "bf16, fp16 or null"),
    ("teachers.0.channels_last=yes", "teachers[0].channels_last", "true or false"),
    ("teachers.0.dataset=a.b", "teachers[0].dataset", "module:factory"),
    (
        "teachers.0={model: 'a:b', dataset: 'a:d', dataset_inputs: image}",
        "teachers[0].dataset_inputs",
        "a list of different keys",
    ),
    (
        "teachers.0={model: 'a:b', dataset: 'a:d', dataset_inputs: [image, 1.5]}",
        "teachers[0].dataset_inputs[1]",
        "1.5 is not allowed",
    ),
    (
        "teachers.0={model: 'a:b', dataset: 'a:d', dataset_inputs: [image, image]}",
        "teachers[0].dataset_inputs",
        "given twice",
    ),
    (
        "teachers.0={model: 'a:b', dataset: 'a:d', dataset_inputs: ['a,b']}",
        "teachers[0].dataset_inputs[0]",
        "'a,b' is not allowed",
    ),
    ("teachers.0={model: 'a:b', dataset_inputs: [0]}", "teachers[0]", "give dataset, too"),
    ("teachers.0.model=hf:", "teachers[0].model", "or hf:FOLDER"),
    *(
        (f"teachers.0.model={wrong}", "teachers[0].model", "or an HTTP engine, as in vllm:http://host:8000")
        for wrong in ("vllm:", "vllm:host:8000", "sglang:http://", "'vllm:http://h:8000#'", "tgi:http://h:80")
    ),
    ("teachers.0={model: 'a:b', dataset: 'hf:/x'}", "teachers[0].dataset", "module:factory"),
    ("teachers.0.kwargs=3", "teachers[0].kwargs", "a mapping of the factory's arguments"),
    ("teachers.0.kwargs={'a b': 3}", "teachers[0].kwargs.a b", "a mapping of the factory's arguments"),
    ("teachers.0.kwargs={a: !!set {b}}", "teachers[0].kwargs.a", "a mapping of the factory's arguments"),
    ("teachers.0={model: 'a:b', weights: 'follow:'}", "teachers[0]", "say where they are published"),
    (
        "teachers.0={model: 'a:b', weights: 'follow:w', version: '2'}",
        "teachers[0]",
        "have versions of their own",
    ),
    ("teachers.0={model: 'a:b', outputs: logits}", "teachers[0].outputs", "a list of different names"),
    ("teachers.0={model: 'a:b', outputs: []}", "teachers[0].outputs", "a list of different names"),
    ("teachers.0={model: 'a:b', outputs: [a, a]}", "teachers[0].outputs", "an output is given twice"),
    (
        "teachers.0={model: 'a:b', outputs: ['a,b']}",
        "teachers[0].outputs[0]",
        "a list of different names",
    ),
    ("teachers.0.dataset_threads=0", "teachers[0].dataset_threads", "from 1 to 1024"),
    ("teachers.0.codec=most:8", "teachers[0].codec", "'most:8' is not allowed: no such codec"),
    ("teachers.0.codec=topk:0", "teachers[0].codec", "a whole number from 1 to 65,536"),
    ("teachers.0.codec=dense:int8", "teachers[0].codec", "dense[:fp32|fp16|bf16]"),
    ("teachers.0.version=1.10", "teachers[0].version", "1.1 is not allowed"),
    ("teachers.0.version='1 '", "teachers[0].version", "'1 ' is not allowed"),
    ('teachers.0.version="a\\nb"', "teachers[0].version", "without a space at either end"),
    ("teachers.0.allow_nonfinite=maybe", "teachers[0].allow_nonfinite", "true or false"),
    ("teachers.0.env=[A]", "teachers[0].env", "a mapping of variable names"),
    ("teachers.0.env={A: true}", "teachers[0].env.A", "quote it"),
    ("teachers.0.env={1A: x}", "teachers[0].env.1A", "a mapping of variable names"),
    ("student=run.py", "student", "a mapping with `script`"),
    ("student.script=", "student.script", "path of a Python script"),
    ("student.args=--epochs 5", "student.args", "a list of text and numbers"),
    ("student.args=[--shuffle, true]", "student.args[1]", "quote it"),
    ("student.args=[null]", "student.args[0]", "quote it"),
    ("student.nnodes=0", "student.nnodes", "1 <= MIN <= MAX"),
    ("student.nnodes=4:1", "student.nnodes", "1 <= MIN <= MAX"),
    ("student.nnodes=many", "student.nnodes", "a range"),
    ("student.nproc_per_node=0", "student.nproc_per_node", "from 1 to 1024"),
    ("student.nproc_per_node=GPU", "student.nproc_per_node", "gpu (as many as there are) or auto"),
    ("student.nproc_per_node=true", "student.nproc_per_node", "True is not allowed"),
    ("teachers.0.min_replicas=0", "teachers[0].min_replicas", "from 1 to 10000 and at most `replicas`"),
    ("teachers.0.min_replicas=two", "teachers[0].min_replicas", "'two' is not allowed"),
    (
        "teachers.0={model: 'a:b', min_replicas: 2}",
        "teachers[0]",
        "min_replicas 2 of 1 workers to start with",
    ),
    ("student.resize=hot", "student.resize", "restart (by torchrun, all ranks) or live"),
    ("student.max_restarts=-1", "student.max_restarts", "from 0 to 1000000000"),
    ("student.high_watermark=0", "student.high_watermark", "from 1 to 1000000000, or null"),
    ("student.high_watermark=deep", "student.high_watermark", "'deep' is not allowed"),
    ("student.low_watermark=-1", "student.low_watermark", "from 0 to 1000000000, or null"),
    ("student.low_watermark=8", "student", "low_watermark 8 has to be below high_watermark"),
    ("student.weight=0", "student.weight", "from 1 to 1000, or null"),
    ("student.weight=1001", "student.weight", "from 1 to 1000"),
    ("student.weight=0.5", "student.weight", "from 1 to 1000"),
    ("student.weight=true", "student.weight", "True is not allowed"),
    ("student.priority=101", "student.priority", "from -100 to 100"),
    ("student.priority=-101", "student.priority", "from -100 to 100"),
    ("student.degrade=small", "student.degrade", "a list of up to 8 smaller codecs or cheaper teachers"),
    ("student.degrade=[{codec: topk}]", "student.degrade[0].codec", "write it as topk:K[:T]"),
    ("student.degrade=[{codec: gather}]", "student.degrade[0].codec", "need more than any teacher's outputs"),
    ("student.degrade=[{}]", "student.degrade[0]", "give each entry a teacher or a codec"),
    (
        "student.degrade=[{codec: int8, teacher: a}]",
        "student.degrade[0]",
        "give each entry a teacher or a codec",
    ),
    ("student.degrade=[small]", "student.degrade[0]", "'small' is not allowed"),
    ("student.degrade=[{teacher: 'a b'}]", "student.degrade[0].teacher", "the name of a teacher of the job"),
    ("student.priority=high", "student.priority", "'high' is not allowed"),
    ("student.env={A: {}}", "student.env.A", "{} is not allowed"),
    ("label=m:f", "label", "a mapping with `data`"),
    ("label={}", "label.data", "missing; it must be module:factory"),
    ("label={data: m.f}", "label.data", "module:factory"),
    ("label={data: 'm:f', kwargs: [1]}", "label.kwargs", "a mapping of the factory's arguments"),
    ("label={data: 'm:f', kwargs: {'a b': 1}}", "label.kwargs.a b", "'a b' is not allowed"),
    ("label={data: 'm:f', inputs: []}", "label.inputs", "a list of different ones, or null"),
    ("label={data: 'm:f', inputs: [a, a]}", "label.inputs", "a list of different ones"),
    ("label={data: 'm:f', inputs: -1}", "label.inputs", "a position (from 0)"),
    ("label={data: 'm:f', inputs: true}", "label.inputs", "True is not allowed"),
    ("label={data: 'm:f', sequences: {}}", "label", "say with inputs which entries of a batch these are"),
    ("label={data: 'm:f', inputs: x, ids: index, sequences: {}}", "label", "leave ids out"),
    ("label={data: 'm:f', inputs: x, sequences: x}", "label.sequences", "a mapping"),
    ("label={data: 'm:f', inputs: x, sequences: {mask: 3}}", "label.sequences.mask", "a key of the batch"),
    ("label={data: 'm:f', inputs: x, sequences: {asked: ''}}", "label.sequences.asked", "or null for all"),
    ("label={data: 'm:f', inputs: x, sequences: {whole: 1}}", "label.sequences.whole", "true or false"),
    (
        "label={data: 'm:f', inputs: x, sequences: {whole: true, asked: x}}",
        "label.sequences",
        "leave asked out",
    ),
    ("label={data: 'm:f', ids: ''}", "label.ids", "index (a sample's place in the data set)"),
    ("label={data: 'm:f', ids: 3}", "label.ids", "3 is not allowed"),
    ("label={data: 'm:f', batch_size: 0}", "label.batch_size", "from 1 to 1000000"),
    ("label={data: 'm:f', shard_rows: 0}", "label.shard_rows", "from 1 to 100000000"),
    ("label={data: 'm:f', num_workers: -1}", "label.num_workers", "from 0 to 1024"),
    ("label={data: 'm:f', nproc_per_node: 0}", "label.nproc_per_node", "from 1 to 1024"),
    ("label={data: 'm:f', nproc_per_node: gpu}", "label.nproc_per_node", "'gpu' is not allowed"),
    ("label={data: 'm:f', max_restarts: x}", "label.max_restarts", "a whole number"),
    ("label={data: 'm:f', resources: {cpus: 0}}", "label.resources.cpus", "or null"),
    ("label={data: 'm:f', env: {A: null}}", "label.env.A", "quote it"),
    ("checkpoint=5", "checkpoint", "a mapping"),
    ("checkpoint.every_steps=0", "checkpoint.every_steps", "or null"),
    ("checkpoint.keep=0", "checkpoint.keep", "from 1 to 1000000000"),
    ("coordinator=5", "coordinator", "a mapping"),
    ("coordinator.heartbeat_ttl_s=0", "coordinator.heartbeat_ttl_s", "from 0.5 to 3600"),
    ("coordinator.heartbeat_ttl_s=.inf", "coordinator.heartbeat_ttl_s", "inf is not allowed"),
    ("coordinator.heartbeat_ttl_s=soon", "coordinator.heartbeat_ttl_s", "'soon' is not allowed"),
    (
        "coordinator.max_students_per_worker=0",
        "coordinator.max_students_per_worker",
        "from 1 to 1000000000",
    ),
    ("teachers.0.resources=big", "teachers[0].resources", "a mapping of what one worker needs"),
    ("teachers.0.resources={cpus: 0}", "teachers[0].resources.cpus", "from 1 to 1000000000, or null"),
    ("student.resources={memory: 16G}", "student.resources.memory", "MiB, GiB or TiB, as in `16GiB`"),
    ("student.resources={memory: 0GiB}", "student.resources.memory", "'0GiB' is not allowed"),
    ("student.resources={gpus: -1}", "student.resources.gpus", "from 0 to 1024"),
    ("coordinator.resources={gpu_type: a b, gpus: 1}", "coordinator.resources.gpu_type", "as in `a100`"),
    ("coordinator.resources={gpu_type: a100}", "coordinator.resources", "a100 of no GPUs"),
    ("slurm=gpu", "slurm", "a mapping of what a Slurm cluster wants to know"),
    ("slurm={partition: 'a b'}", "slurm.partition", "several parted by commas"),
    ("slurm={partition: 'a b'}", "slurm.partition", "'a b' is not allowed"),
    ('slurm={account: "a\\nb"}', "slurm.account", "is not allowed"),
    ("slurm={constraint: 'a b'}", "slurm.constraint", "features that the hosts must have"),
    ("slurm={gres: 'gpu 1'}", "slurm.gres", "generic resources besides GPUs"),
    ("slurm={time_limit: soon}", "slurm.time_limit", "hours:minutes:seconds"),
    ("slurm={time_limit: '1:75:00'}", "slurm.time_limit", "is not allowed"),
    ("slurm={time_limit: 2}", "slurm", "with a time_limit of 2 the warning of warn_s=120 s, which"),
    ("slurm={student: {time_limit: '1:00'}}", "slurm", "with a time_limit of 1:00 the warning"),
    ("slurm={time_limit: '2:00', warn_s: 60}", "slurm", "may give 60 s earlier, comes at the very start"),
    ("slurm={nice: 1.5}", "slurm.nice", "1.5 is not allowed"),
    ("slurm={setup: module load cuda}", "slurm.setup", "a list of lines for the shell"),
    ("slurm={setup: ['']}", "slurm.setup[0]", "a list of lines for the shell"),
    ("slurm={options: ['-p gpu']}", "slurm.options[0]", "a list of further options of sbatch"),
    ("slurm={options: [--array=1-9]}", "slurm.options", "--array=1-9: edldist gives it"),
    ("slurm={options: [--partition=x]}", "slurm.options", "write it as `partition`"),
    ("slurm={options: [--mem=4G]}", "slurm.options", "write it as `resources` of the role"),
    ("slurm={warn_s: 0}", "slurm.warn_s", "from 1 to 65535"),
    ("slurm={requeue: maybe}", "slurm.requeue", "true, or false"),
    ("slurm={poll_s: 0.1}", "slurm.poll_s", "from 0.5 to 3600"),
    ("slurm={coordinator: cpu}", "slurm.coordinator", "a mapping, as in {partition: cpu}"),
    (
        "slurm={teachers: {nobody: {partition: x}}}",
        "the job",
        "there is no teacher `nobody`; there are teacher",
    ),
    ("slurm={teachers: {'a b': {}}}", "slurm.teachers.a b", "a mapping from names of teachers"),
    ("kubernetes=lab", "kubernetes", "a mapping of what a Kubernetes cluster"),
    ("kubernetes.namespace=My Space", "kubernetes.namespace", "'My Space' is not allowed; it must be a name"),
    ("kubernetes.context=3", "kubernetes.context", "a context of the kubeconfig"),
    ("kubernetes.image=a b", "kubernetes.image", "the name of an image"),
    ("kubernetes.image=null", "kubernetes.image", "None is not allowed"),
    ("kubernetes.pull_policy=always", "kubernetes.pull_policy", "Always, IfNotPresent or Never"),
    ("kubernetes.pull_secrets=registry", "kubernetes.pull_secrets", "a list of names of Secrets"),
    ("kubernetes.pull_secrets=[a_b]", "kubernetes.pull_secrets[0]", "a list of names of Secrets"),
    ("kubernetes.workdir=job", "kubernetes.workdir", "the folder in the image"),
    ("kubernetes.claim=A", "kubernetes.claim", "a PersistentVolumeClaim that is there"),
    ("kubernetes.storage_class=fast_disk", "kubernetes.storage_class", "the cluster's default"),
    ("kubernetes.storage_size=10Gi", "kubernetes.storage_size", "MiB, GiB or TiB, as in `16GiB`"),
    (
        "kubernetes={claim: a, storage_class: b}",
        "kubernetes",
        "storage_class is of a claim that is made; a is",
    ),
    ("kubernetes.storage_access=RWX", "kubernetes.storage_access", "ReadWriteMany, or ReadWriteOnce where"),
    ("kubernetes.object_store=bucket", "kubernetes.object_store", "as in `s3://bucket/run`"),
    ("kubernetes.node_selector=gpu", "kubernetes.node_selector", "a mapping of nodes' labels"),
    ("kubernetes.node_selector={a b: c}", "kubernetes.node_selector.a b", "a mapping of nodes' labels"),
    ("kubernetes.node_selector={pool: 7}", "kubernetes.node_selector.pool", "7 is not allowed"),
    ("kubernetes.tolerations={}", "kubernetes.tolerations", "as in [{key: dedicated}]"),
    (
        "kubernetes.tolerations=[{operator: Equal, value: a}]",
        "kubernetes.tolerations[0]",
        "the value of a key: give key",
    ),
    ("kubernetes.tolerations=[{key: a, value: b}]", "kubernetes.tolerations[0]", "give both or neither"),
    (
        "kubernetes.tolerations=[{effect: No}]",
        "kubernetes.tolerations[0].effect",
        "NoSchedule, PreferNoSchedule",
    ),
    ("kubernetes.spot=1", "kubernetes.spot", "true (teachers on machines that may be taken away) or false"),
    ("kubernetes.gpu_resource=a b", "kubernetes.gpu_resource", "as in `nvidia.com/gpu`"),
    ("kubernetes.gpu_label=", "kubernetes.gpu_label", "tells a GPU's type"),
    ("kubernetes.priority_class=High", "kubernetes.priority_class", "lower-case letters"),
    ("kubernetes.queue=a.b", "kubernetes.queue", "a queue of Kueue's"),
    ("kubernetes.secrets=[A]", "kubernetes.secrets[0]", "whose keys become variables"),
    (
        "kubernetes.volumes=[{claim: a}]",
        "kubernetes.volumes[0].path",
        "missing; it must be a folder's whole path",
    ),
    ("kubernetes.volumes=[{claim: a, path: b}]", "kubernetes.volumes[0].path", "as in `/data`"),
    (
        "kubernetes.volumes=[{claim: a, path: /b}, {claim: c, path: /b}]",
        "kubernetes.volumes",
        "two volumes have the same path",
    ),
    ("kubernetes.annotations={a: 1}", "kubernetes.annotations.a", "a mapping of names to text"),
    ("kubernetes.autoscaler=hpa", "kubernetes.autoscaler", "keda (for teachers whose replicas are a range)"),
    ("kubernetes.monitor=prometheus", "kubernetes.monitor", "true (for the Prometheus operator) or false"),
    ("kubernetes.keep_s=-1", "kubernetes.keep_s", "seconds, up to 604800"),
    ("kubernetes.student=gpu", "kubernetes.student", "as in {queue: training}"),
    (
        "kubernetes.teachers={teacher: {spot: 2}}",
        "kubernetes.teachers.teacher.spot",
        "2 is not allowed; it must be true (on machines",
    ),
    ("kubernetes.teachers={big: {}}", "the job", "kubernetes.teachers: there is no teacher `big`"),
    ("prepare={}", "prepare.script", "missing; it must be the path of a Python script"),
    ("prepare={script: p.py, args: x}", "prepare.args", "a list"),
]

# Overrides of MINIMAL: the key that nobody knows, and what is said about those that are known.
UNKNOWN_KEYS = [
    ("teacher.model=x:y", "teacher", "did you mean `teachers`?"),
    ("teachers.0.batchsize=2", "teachers[0].batchsize", "did you mean `batch_size`?"),
    ("teachers.0.replicas={min: 1, max: 2, maxx: 3}", "teachers[0].replicas.maxx", "`max`?"),
    ("student.nprocs_per_node=2", "student.nprocs_per_node", "did you mean `nproc_per_node`?"),
    ("coordinator.heartbeat_s=2", "coordinator.heartbeat_s", "did you mean `heartbeat_ttl_s`?"),
    ("agreement.max_nat=2", "agreement.max_nat", "did you mean `max_nats`?"),
    (
        "label={data: 'm:f', inputs: x, sequences: {masks: x}}",
        "label.sequences.masks",
        "did you mean `mask`?",
    ),
    ("label={data: 'm:f', shards: 2}", "label.shards", "did you mean `shard_rows`?"),
    ("checkpoint.every_step=2", "checkpoint.every_step", "did you mean `every_steps`?"),
    ("prepare={script: a.py, arg: []}", "prepare.arg", "did you mean `args`?"),
    ("slurm={partitions: gpu}", "slurm.partitions", "did you mean `partition`?"),
    ("slurm={student: {warn_s: 5}}", "slurm.student.warn_s", "Allowed here: `partition`, `account`"),
    ("slurm={teachers: {teacher: {nicee: 5}}}", "slurm.teachers.teacher.nicee", "did you mean `nice`?"),
    ("kubernetes.name_space=a", "kubernetes.name_space", "did you mean `namespace`?"),
    (
        "kubernetes.student={namespace: a}",
        "kubernetes.student.namespace",
        "Allowed here: `image`, `node_selector`",
    ),
    ("kubernetes.teachers={teacher: {gpus: 1}}", "kubernetes.teachers.teacher.gpus", "Allowed here: `image`"),
    ("kubernetes.student={spot: true}", "kubernetes.student.spot", "Allowed here: `image`, `node_selector`"),
    ("kubernetes.tolerations=[{keys: a}]", "kubernetes.tolerations[0].keys", "did you mean `key`?"),
    ("zzz=2", "zzz", "Allowed here: `name`, `teachers`, `student`"),
]


def write_toy(folder: Path, *args: object) -> Path:
    """A job ``toy`` that this machine could run, with its script and its model; the path of its job file."""
    (folder / "s.py").write_text("")
    (folder / "models.py").write_text("def f(): pass\n")
    path = folder / "job.yaml"
    path.write_text(
        "name: toy\n"
        'teachers: [{model: "models:f"}]\n'
        f"student: {{script: s.py, args: [{', '.join(map(str, args))}]}}\n"
    )
    return path
