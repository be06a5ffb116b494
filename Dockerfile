# edldist in a container: coordinator, teacher worker and student node are one image.
#
#   docker build -t edldist .                                   on CPUs
#   docker build -t edldist:cuda --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 \
#       --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#   docker build -t edldist --build-arg EXTRAS=examples .       with what the examples need
#
# A job of one's own goes on top:
#   FROM edldist
#   COPY --chown=1000:1000 . /job
# (safetensors writes files that nobody but their owner may read).
#
# `edldist` is process 1 of its container, collects what ends there and passes signals on; it needs no other init.

ARG BASE=docker.io/library/python:3.11-slim-bookworm

# --- everything that edldist needs: the large layer, which changes with pyproject.toml alone ---------------
FROM ${BASE} AS dependencies
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN command -v python3 > /dev/null && python3 -c "import ensurepip, venv" 2> /dev/null \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-venv; }
RUN python3 -m venv /opt/edldist
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# Neither the packages nor the texts are there yet, so that what is installed here does not change with them.
# It is compiled, since pods compile nothing: importing torch takes a third of the time.
RUN /opt/edldist/bin/python -c 'import re; \
    text = re.sub(r"(?m)^(readme|license-files) = .*", "", open("pyproject.toml").read()); \
    open("needs.toml", "w").write(re.sub(r"(?s)\[tool\.setuptools\].*?(?=\n\[tool\.ruff\])", "[tool.setuptools]\npackages = []\n", text))' \
    && mv needs.toml pyproject.toml \
    && /opt/edldist/bin/pip install -q -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} ".[${EXTRAS}]" \
    && /opt/edldist/bin/pip uninstall -q -y edldist

# --- edldist itself, as a wheel ---------------------------------------------------------------------------
FROM dependencies AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY edldist edldist
COPY launch launch
COPY benchmarks benchmarks
COPY k8s k8s
RUN /opt/edldist/bin/pip wheel -q --no-deps --wheel-dir /dist . \
    && /opt/edldist/bin/pip install -q --no-deps --no-index --prefix /own /dist/*.whl

# --- the image --------------------------------------------------------------------------------------------
FROM ${BASE}
RUN command -v python3 > /dev/null \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*; }
COPY --from=dependencies /opt/edldist /opt/edldist
# Not by a mount of the wheel: podman would take an earlier build's layer, whatever the wheel holds.
COPY --from=wheel /own /opt/edldist
COPY examples /job/examples
ENV PATH=/opt/edldist/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /job
USER 1000:1000
ENTRYPOINT ["edldist"]
CMD ["--help"]
