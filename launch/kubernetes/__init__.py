"""Jobs on Kubernetes: its objects, made from the manifests in ``k8s``, and the API through ``kubectl``."""
