"""What KEDA does with a ScaledObject of one metrics-api trigger.

``python -m ... ADDRESS PORT CERTIFICATE KEY``, with KUBECONFIG set, serves there.

It makes the HPA that KEDA would make, and answers that HPA's questions for its external metric by asking the
URL of the trigger with the token of its secret. Where a ScaledObject is paused there is no HPA, and the
Deployment has the number that was asked for. The rest is the cluster's own: its HPA decides and acts. What
KEDA does below one worker (activation, cool-down) is not here.

::

    ScaledObject --read--> this --makes, removes--> HPA --asks for its metric--> API server --> this --> URL
"""

from __future__ import annotations

import base64
import http.server
import json
import os
import ssl
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

from tests.clusters.kubernetes.api import Api, Object
from tests.clusters.kubernetes.dns import ZONE, address

__all__ = ["API_SERVICE", "KINDS"]

API = "/apis/external.metrics.k8s.io/v1beta1"
LABEL = "scaledobject.keda.sh/name"
METRIC = "s0-metric-api-wanted"
PAUSED = "autoscaling.keda.sh/paused-replicas"
LOOK_S = 1.0
KINDS = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: scaledobjects.keda.sh}
spec:
  group: keda.sh
  scope: Namespaced
  names: {kind: ScaledObject, plural: scaledobjects, singular: scaledobject}
  versions:
    - {name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object,
       x-kubernetes-preserve-unknown-fields: true}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: triggerauthentications.keda.sh}
spec:
  group: keda.sh
  scope: Namespaced
  names: {kind: TriggerAuthentication, plural: triggerauthentications, singular: triggerauthentication}
  versions:
    - {name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object,
       x-kubernetes-preserve-unknown-fields: true}}}
"""
"""KEDA's kinds, without their schemas: what is rendered is checked against those elsewhere."""
API_SERVICE = """\
apiVersion: v1
kind: Service
metadata: {{name: metrics, namespace: kube-system}}
spec: {{clusterIP: None, ports: [{{name: https, port: {port}, targetPort: {port}}}]}}
---
apiVersion: v1
kind: Endpoints
metadata: {{name: metrics, namespace: kube-system}}
subsets: [{{addresses: [{{ip: {address}}}], ports: [{{name: https, port: {port}}}]}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1beta1.external.metrics.k8s.io}}
spec:
  group: external.metrics.k8s.io
  version: v1beta1
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
  service: {{name: metrics, namespace: kube-system, port: {port}}}
"""
"""Where the cluster asks for external metrics: at an address and a port."""


class Scaler:
    """All ScaledObjects of a cluster."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def run(self) -> None:
        """Follow the ScaledObjects for ever."""
        while True:
            try:
                for each in self._api.ask("/apis/keda.sh/v1alpha1/scaledobjects")["items"]:
                    self._follow(each)
            except OSError as exc:
                print(f"no answer: {exc}", flush=True)
            time.sleep(LOOK_S)

    def metric(self, namespace: str, name: str) -> int:
        """What the trigger of a ScaledObject says.

        Raises:
            OSError: it says nothing.
        """
        path = f"/apis/keda.sh/v1alpha1/namespaces/{namespace}"
        (trigger,) = self._api.ask(f"{path}/scaledobjects/{name}")["spec"]["triggers"]
        about, shown = trigger["metadata"], trigger["authenticationRef"]["name"]
        (given,) = self._api.ask(f"{path}/triggerauthentications/{shown}")["spec"]["secretTargetRef"]
        secrets = self._api.ask(f"/api/v1/namespaces/{namespace}/secrets/{given['name']}")["data"]
        assert (given["parameter"], about["authMode"], about["targetValue"]) == ("token", "bearer", "1")
        token = base64.b64decode(secrets[given["key"]]).decode()
        url = urllib.parse.urlsplit(about["url"])
        host = url.hostname or ""
        found = address(".".join([*host.removesuffix(".svc").split("."), *ZONE]), self._api)
        if found is None:
            raise OSError(f"no such name: {host}")
        request = urllib.request.Request(f"http://{found}:{url.port}{url.path}")
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(json.load(answer)[about["valueLocation"]])

    def _follow(self, each: Object) -> None:
        namespace, name = each["metadata"]["namespace"], each["metadata"]["name"]
        scalers = f"/apis/autoscaling/v2beta2/namespaces/{namespace}/horizontalpodautoscalers"
        there = any(found["metadata"]["name"] == name for found in self._api.ask(scalers)["items"])
        paused = each["metadata"].get("annotations", {}).get(PAUSED)
        if paused is None and not there:
            self._api.ask(scalers, "POST", scaler_of(each))
        elif paused is not None:
            if there:
                self._api.ask(f"{scalers}/{name}", "DELETE")
            owner = each["spec"]["scaleTargetRef"]["name"]
            target = f"/apis/apps/v1/namespaces/{namespace}/deployments/{owner}"
            change = {"spec": {"replicas": int(paused)}}
            self._api.ask(f"{target}/scale", "PATCH", change, "merge-patch+json")


def scaler_of(each: Object) -> Object:
    """The HPA that KEDA makes of a ScaledObject."""
    spec, about = each["spec"], each["metadata"]
    owner = {key: each[key] for key in ("apiVersion", "kind")} | {key: about[key] for key in ("name", "uid")}
    (trigger,) = spec["triggers"]
    metric = {"name": METRIC, "selector": {"matchLabels": {LABEL: about["name"]}}}
    target = {"type": trigger["metricType"], "averageValue": trigger["metadata"]["targetValue"]}
    return {
        "apiVersion": "autoscaling/v2beta2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": about["name"], "namespace": about["namespace"], "ownerReferences": [owner]},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment"} | spec["scaleTargetRef"],
            "minReplicas": max(1, spec["minReplicaCount"]),
            "maxReplicas": spec["maxReplicaCount"],
            "behavior": spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
            "metrics": [{"type": "External", "external": {"metric": metric, "target": target}}],
        },
    }


class Metrics(http.server.BaseHTTPRequestHandler):
    """The API ``external.metrics.k8s.io``."""

    scaler: Scaler

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if url.path.rstrip("/") != API and not url.path.startswith(f"{API}/namespaces/"):
            self._answer(404, {})
        elif url.path.rstrip("/") == API:
            verbs = {"name": METRIC, "singularName": "", "namespaced": True, "verbs": ["get"]}
            self._answer(200, _list("APIResourceList", "v1", [verbs | {"kind": "ExternalMetricValueList"}]))
        else:
            namespace = url.path.removeprefix(f"{API}/namespaces/").partition("/")[0]
            selector = urllib.parse.parse_qs(url.query)["labelSelector"][0]
            try:
                value = self.scaler.metric(namespace, selector.removeprefix(f"{LABEL}="))
            except OSError as exc:
                print(f"no metric: {exc}", flush=True)
                self._answer(500, {"kind": "Status", "apiVersion": "v1", "message": str(exc), "code": 500})
                return
            print(f"{time.strftime('%T')} {selector}: {value}", flush=True)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            item = {"metricName": METRIC, "metricLabels": {}, "timestamp": now, "value": str(value)}
            self._answer(200, _list("ExternalMetricValueList", "external.metrics.k8s.io/v1beta1", [item]))

    def _answer(self, status: int, said: Object) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _list(kind: str, version: str, items: list[Object]) -> Object:
    key = "resources" if kind == "APIResourceList" else "items"
    more = {"groupVersion": "external.metrics.k8s.io/v1beta1"} if key == "resources" else {"metadata": {}}
    return {"kind": kind, "apiVersion": version, key: items, **more}


def main() -> None:
    at, port, certificate, key = sys.argv[1:]
    Metrics.scaler = Scaler(Api(Path(os.environ["KUBECONFIG"])))
    threading.Thread(target=Metrics.scaler.run, daemon=True).start()
    server = http.server.ThreadingHTTPServer((at, int(port)), Metrics)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(certificate, key)
    server.socket = trust.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
