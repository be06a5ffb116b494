"""A Kubernetes of a test's own: one node with everything on it, in namespaces that end with the test.

etcd, the API server, the controllers, the scheduler, kube-proxy, kubelet and containerd are the real ones
(1.20, built by ``build.sh``, the others Debian's). They share a network, a mount and a process namespace,
whose first process is tied to the test: whatever becomes of that, no process, no mount and no packet rule
is left. The host reaches the node, its pods and its Services over a cable of two virtual devices. On the node
is a registry of images, too.

The binaries lie in ``$EDLDIST_KUBERNETES``, which ``make kubernetes`` sets; what is missing there is built.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from edldist_launch.process.tie import tied_command
from tests.clusters.kubernetes.keda import API_SERVICE, KINDS
from tests.clusters.kubernetes.older import CONVERTED, REAL
from tests.contract.launch.engines import write_scripts
from tests.fault.harness import ROOT

__all__ = ["Cluster", "IMAGE", "REGISTRY", "shared_cluster"]

HERE = Path(__file__).parent
BUILT = os.environ.get("EDLDIST_KUBERNETES", "")
HOST, NODE = "10.79.2.1", "10.79.2.2"
PODS, SERVICES = "10.79.0.0/24", "10.96.0.0/16"
CABLE = "edldistkube"
PAUSE, IMAGE = "localhost/edldist-pause:test", "localhost/edldist-job:test"
METRICS_PORT = 6444
REGISTRY = f"{NODE}:5000"
"""Where podman pushes images, and the node pulls them."""
GATES = "--feature-gates=TTLAfterFinished=true"
WITHIN_S = 180.0
TOOLS = (
    *(
        "etcd",
        "containerd",
        "runc",
        "conntrack",
        "iptables",
        "kubectl",
        "ip",
        "openssl",
        "nsenter",
        "unshare",
    ),
    *("podman", "catatonit", "debootstrap", "docker-registry"),
)
CTR = ("ctr", "--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io")
TOKEN = "admin-token"

_INIT = """\
mount -t tmpfs tmpfs /run
mkdir -p /run/containerd
ip link set lo up
: > {folder}/up
while :; do sleep 3600 & wait; done
"""
_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://{node}:6443", insecure-skip-tls-verify: true}}}}]
users: [{{name: u, user: {{token: {token}}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u, namespace: default}}}}]
current-context: x
"""
_KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
failSwapOn: false
clusterDNS: ["{node}"]
clusterDomain: cluster.local
imageGCHighThresholdPercent: 100
evictionHard: {{nodefs.available: "1%", imagefs.available: "1%", memory.available: "100Mi"}}
volumePluginDir: {folder}/plugins
resolvConf: {folder}/resolv.conf
enforceNodeAllocatable: []
cgroupsPerQOS: false
readOnlyPort: 0
nodeStatusUpdateFrequency: 4s
"""
_CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "/run/containerd/state"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry.mirrors."{registry}"]
    endpoint = ["http://{registry}"]
"""
_REGISTRY = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}
http: {{addr: "{registry}"}}
"""
_REGISTRIES = """\
[[registry]]
location = "{registry}"
insecure = true
"""
_CONTAINERS = """\
[engine]
runtime = "runc"
"""
_NETWORK = """\
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "/run/ipam", "ranges": [[{"subnet": "10.79.0.0/24"}]],
           "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
"""

_WRAPPER = """\
#!/bin/sh
case "$*" in
  "create --filename -"*) exec {python} -m tests.clusters.kubernetes.older "$@" ;;
  *) exec "$REAL_KUBECTL" "$@" ;;
esac
"""
_VOLUME = """\
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {namespace}}}
spec:
  capacity: {{storage: 10Gi}}
  accessModes: [ReadWriteMany]
  claimRef: {{namespace: {namespace}, name: {claim}}}
  hostPath: {{path: {folder}}}
"""


def require_kubernetes() -> None:
    """Install and build what is missing; skip where that cannot be."""
    if not BUILT:
        pytest.skip("a real Kubernetes is built, once, and run by `make kubernetes`")
    if os.geteuid() != 0:
        pytest.skip("a node is namespaces, which need root")

    def missing() -> list[str]:
        return [tool for tool in TOOLS if shutil.which(tool) is None]

    has_apt = shutil.which("apt-get") is not None
    if missing() and has_apt:
        subprocess.run([str(HERE / "install.sh")], timeout=600, check=False)
    if missing():
        pytest.skip(f"{', '.join(missing())} cannot be had here: Debian's packages have them (install.sh)")
    if not (Path(BUILT) / "built").exists():
        if not has_apt:
            pytest.skip(f"no Kubernetes is built in {BUILT}, and without apt none can be")
        subprocess.run([str(HERE / "build.sh"), BUILT], timeout=5400, check=True)


class Cluster:
    """A Kubernetes that runs, and has the image ``IMAGE``.

    Args:
        folder: for everything that it writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "kubeconfig"
        self.converted = folder / "converted"
        kubectl = shutil.which("kubectl")
        assert kubectl is not None
        self.environment = {
            "KUBECONFIG": str(self.config),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            CONVERTED: str(self.converted),
            REAL: kubectl,
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        }
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._logs = contextlib.ExitStack()
        self._begin()

    def _begin(self) -> None:
        init = _INIT.format(folder=self.folder)
        kinds = ("--net", "--mount", "--pid", "--ipc", "--uts")
        self._init = subprocess.Popen(
            tied_command(
                ["unshare", *kinds, "--fork", "--kill-child", "--mount-proc", "sh", "-euc", init],
                os.getpid(),
                signal.SIGKILL,
            )
        )
        try:
            self._wait("the node's namespaces", (self.folder / "up").exists)
            self._connect()
            self._configure()
            self._start()
            self._load()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def chosen(self) -> Iterator[Cluster]:
        """Meanwhile ``kubectl`` and ``podman`` of this process and its children reach this cluster."""
        with mock.patch.dict(os.environ, self.environment):
            yield self

    def room(self, namespace: str, claim: str) -> Path:
        """Make a namespace, and a volume for a claim in it; the volume's folder."""
        folder = self.folder / "volumes" / namespace
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        given = _VOLUME.format(namespace=namespace, claim=claim, folder=folder)
        self.kubectl("create", "namespace", namespace)
        self.kubectl("apply", "--filename", "-", given=given)
        return folder

    def offer_again(self, namespace: str) -> None:
        """A claim that is deleted keeps its volume from others of that name: let the next one have it."""
        freed = '{"spec": {"claimRef": {"uid": null, "resourceVersion": null}}}'
        self.kubectl("patch", "persistentvolume", namespace, "--type", "merge", "--patch", freed)

    def kubectl(self, *words: str, given: str = "", check: bool = True) -> str:
        """What ``kubectl`` prints."""
        done = subprocess.run(
            ["kubectl", *words],
            env=os.environ | self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def inside(self, *command: str) -> list[str]:
        """A command line that runs on the node."""
        return [*self._place, *command]

    def signal(self, pod: str, namespace: str, name: str) -> None:
        """Send a signal to every process of a pod's main container."""
        found = self.kubectl(
            "get", "pod", pod, "-n", namespace, "-o", "jsonpath={.status.containerStatuses[0].containerID}"
        )
        task = found.removeprefix("containerd://")
        self._run(*self.inside(*CTR, "tasks", "kill", "--all", "--signal", name, task))

    @contextlib.contextmanager
    def without_api(self) -> Iterator[None]:
        """Meanwhile the API server is gone."""
        os.kill(_only_child(self._daemons["apiserver"].pid), signal.SIGKILL)
        self._daemons.pop("apiserver").wait()
        try:
            yield
        finally:
            self._start_api()

    def _daemon(self, name: str, *command: str) -> None:
        """Start a process that lives on the node, and no longer; its output goes into ``NAME.log``."""
        log = self._logs.enter_context((self.folder / f"{name}.log").open("ab"))
        self._daemons[name] = subprocess.Popen(
            tied_command(self.inside(*command), os.getpid(), signal.SIGKILL),
            env=os.environ | self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """End everything."""
        self._init.kill()  # the child goes with it, and the namespace with the child
        self._init.wait()
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()
        self._logs.close()
        for root in Path("/sys/fs/cgroup").glob("*/k8s.io"):  # a folder goes only once it has no process
            for folder, _, _ in os.walk(root, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    # --- how it comes up ------------------------------------------------------------------------

    @property
    def _pid(self) -> int:
        """Of the namespaces' first process, as the host sees it."""
        return _only_child(self._init.pid)

    @property
    def _place(self) -> list[str]:
        names = ("net", "mount", "pid", "ipc", "uts")
        return ["nsenter", f"--target={self._pid}", *(f"--{name}" for name in names), "--"]

    def _connect(self) -> None:
        # That of a cluster before goes soon after its namespace.
        self._wait("a place for the node", lambda: not Path(f"/sys/class/net/{CABLE}").exists())
        self._run("ip", "link", "add", CABLE, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid))
        self._run("ip", "addr", "add", f"{HOST}/30", "dev", CABLE)
        self._run("ip", "link", "set", CABLE, "up")
        for network in (PODS, SERVICES):
            self._run("ip", "route", "add", network, "via", NODE, "dev", CABLE)
        for words in (
            ("ip", "addr", "add", f"{NODE}/30", "dev", "eth0"),
            ("ip", "link", "set", "eth0", "up"),
            ("ip", "route", "add", "default", "via", HOST),
            ("sysctl", "-qw", "net.ipv4.ip_forward=1"),
        ):
            self._run(*self.inside(*words))

    def _configure(self) -> None:
        (self.folder / "cni").mkdir()
        fields = {
            "folder": self.folder,
            "node": NODE,
            "token": TOKEN,
            "pause": PAUSE,
            "registry": REGISTRY,
        }
        self.config.write_text(_KUBECONFIG.format(**fields))
        (self.folder / "kubelet.yaml").write_text(_KUBELET.format(**fields))
        (self.folder / "containerd.toml").write_text(_CONTAINERD.format(**fields))
        (self.folder / "registry.yaml").write_text(_REGISTRY.format(**fields))
        (self.folder / "registries.conf").write_text(_REGISTRIES.format(**fields))
        (self.folder / "containers.conf").write_text(_CONTAINERS)
        (self.folder / "cni" / "10-net.conflist").write_text(_NETWORK)
        (self.folder / "resolv.conf").write_text(f"nameserver {NODE}\n")
        (self.folder / "tokens.csv").write_text(
            f"{TOKEN},admin,admin,system:masters\nguest-token,guest,guest\n"
        )
        wrapper = self.folder / "bin" / "kubectl"
        wrapper.parent.mkdir()
        wrapper.write_text(_WRAPPER.format(python=shlex.quote(sys.executable)))
        wrapper.chmod(0o755)
        key, certificate = str(self.folder / "sa.key"), str(self.folder / "metrics.crt")
        self._run("openssl", "genrsa", "-out", key, "2048")
        self._run("openssl", "req", "-x509", "-key", key, "-subj", "/CN=metrics", "-out", certificate)
        self._run("openssl", "rsa", "-in", key, "-pubout", "-out", str(self.folder / "sa.pub"))

    def _start(self) -> None:
        folder, kube = self.folder, Path(BUILT) / "bin"
        config = f"--kubeconfig={self.config}"
        here = ("--bind-address=127.0.0.1", "--port=0")
        self._daemon("containerd", "containerd", "--config", str(folder / "containerd.toml"))
        self._daemon("registry", "docker-registry", "serve", str(folder / "registry.yaml"))
        self._daemon("etcd", "etcd", "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync")
        self._start_api()
        self._daemon(
            *("controllers", str(kube / "kube-controller-manager"), config, GATES, "--leader-elect=false"),
            *(f"--service-account-private-key-file={folder}/sa.key", *here),
            *("--horizontal-pod-autoscaler-sync-period=5s", "--node-monitor-period=2s"),
            *("--horizontal-pod-autoscaler-downscale-stabilization=10s", "--node-monitor-grace-period=40s"),
        )
        self._daemon(
            "scheduler", str(kube / "kube-scheduler"), config, "--leader-elect=false", "--v=1", *here
        )
        self._daemon(
            *("proxy", str(kube / "kube-proxy"), config, "--proxy-mode=iptables", f"--cluster-cidr={PODS}"),
            *("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"),
            *("--conntrack-tcp-timeout-close-wait=0", "--hostname-override=node1"),
        )
        self._daemon("dns", sys.executable, "-m", "tests.clusters.kubernetes.dns", NODE)
        self.kubectl("apply", "--filename", "-", given=KINDS)
        self.kubectl("apply", "--filename", "-", given=API_SERVICE.format(address=NODE, port=METRICS_PORT))
        self._daemon(
            *("keda", sys.executable, "-m", "tests.clusters.kubernetes.keda", NODE, str(METRICS_PORT)),
            *(str(folder / "metrics.crt"), str(folder / "sa.key")),
        )
        socket = "/run/containerd/containerd.sock"
        reached = self.inside("ctr", "--address", socket, "version")
        self._wait("containerd", lambda: not subprocess.run(reached, capture_output=True).returncode)
        self._daemon(
            *("kubelet", str(kube / "kubelet"), f"--config={folder}/kubelet.yaml", config),
            *("--container-runtime=remote", f"--container-runtime-endpoint=unix://{socket}"),
            *(f"--root-dir={folder}/kubelet", f"--cert-dir={folder}/pki", "--hostname-override=node1"),
            *(f"--node-ip={NODE}", f"--pod-infra-container-image={PAUSE}"),
        )
        self._wait("the node", lambda: " Ready" in self.kubectl("get", "nodes", check=False))

    def _start_api(self) -> None:
        folder = self.folder
        self._daemon(
            *("apiserver", f"{BUILT}/bin/kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", GATES),
            *("--secure-port=6443", f"--advertise-address={NODE}", f"--cert-dir={folder}/certs"),
            *(f"--service-cluster-ip-range={SERVICES}", f"--token-auth-file={folder}/tokens.csv"),
            *("--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc"),
            *(f"--service-account-key-file={folder}/sa.pub", "--allow-privileged=true"),
            *(f"--service-account-signing-key-file={folder}/sa.key", "--enable-aggregator-routing=true"),
            *("--disable-admission-plugins=ServiceAccount", "--kubelet-preferred-address-types=InternalIP"),
        )
        self._wait("the API server", lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok")

    def _load(self) -> None:
        """Give the node its images."""
        scripts, archive = self.folder / "job", self.folder / "images.tar"
        scripts.mkdir()
        write_scripts(scripts)
        for name in ("paced.py", "live.py"):
            shutil.copy(HERE / name, scripts)
        for command in (
            [str(HERE / "images.sh"), PAUSE, IMAGE, str(scripts), str(archive)],
            self.inside(*CTR, "images", "import", str(archive)),
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
            assert done.returncode == 0, done.stderr
        archive.unlink()

    def _wait(self, what: str, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not reached():
            dead = [name for name, each in self._daemons.items() if each.poll() is not None]
            if dead or time.monotonic() > deadline:
                said = "".join((self.folder / f"{name}.log").read_text()[-2000:] for name in dead)
                raise AssertionError(f"{what} did not come up; {dead} ended: {said}")
            time.sleep(0.2)

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def _only_child(pid: int) -> int:
    """The process that ``unshare`` or ``nsenter`` started, as the host sees it."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@functools.cache
def shared_cluster() -> Cluster:
    """The cluster of this process, which ends with it; skips where none can be had."""
    require_kubernetes()
    # No `TemporaryDirectory`: an exit handler of its own, newer than this module's, would remove it first.
    folder = Path(tempfile.mkdtemp(prefix="kube", dir="/var/tmp"))
    _LEFT.callback(shutil.rmtree, folder, ignore_errors=True)
    return _LEFT.enter_context(contextlib.closing(Cluster(folder)))


_LEFT = contextlib.ExitStack()
atexit.register(_LEFT.close)
