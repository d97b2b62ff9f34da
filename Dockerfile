# docs/docker.md says how to build and run it. BASE: any Debian or Ubuntu with Python 3.11 or 3.12, or an image that CUDA is in.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# libglib2.0-0 and libgl1 are what OpenCV opens; git is for the extra `saliency`.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv libgl1 libglib2.0-0 git \
    && rm -rf /var/lib/apt/lists/*

# Options for pip ("--extra-index-url …" of an index with CPU builds of torch), and extras of the package ("[video,hub]").
ARG PIP_EXTRA=""
ARG EXTRAS=""

WORKDIR /opt/seqjepa
COPY constraints.txt pyproject.toml README.md LICENSE cli.py ./
COPY shards shards
COPY pipelines pipelines
COPY seqjepa seqjepa
# hadolint ignore=SC2086
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir ${PIP_EXTRA} -c constraints.txt ".${EXTRAS}"

# Some bases have a uid 1000 already. Files in a mounted folder belong to whom `docker run --user` says.
RUN useradd --create-home --uid 10001 seqjepa && mkdir /work && chown seqjepa /work && chmod 1777 /work
USER 10001
WORKDIR /work
ENV PATH=/opt/venv/bin:$PATH HOME=/work XDG_CACHE_HOME=/work/.cache PYTHONUNBUFFERED=1
ENTRYPOINT ["seqjepa"]
CMD ["--help"]
