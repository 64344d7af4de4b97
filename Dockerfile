# syntax=docker/dockerfile:1
# docker build -t ripu .                                  CPU
# docker build -t ripu:cuda --build-arg TORCH=cu128 .     NVIDIA GPUs; run with --gpus all
# docker run --rm --shm-size=8g -v "$PWD":/work ripu python -m ripu.train dataset=streets
FROM python:3.12-slim-bookworm

# The index of PyTorch's wheels: cpu, or cu126, cu128, ... for a CUDA version that the driver supports.
ARG TORCH=cpu

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 NO_ALBUMENTATIONS_UPDATE=1
# hadolint ignore=DL3013
RUN pip install torch torchvision --index-url "https://download.pytorch.org/whl/${TORCH}"

COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
COPY conf /src/conf
RUN pip install "/src[annotate,export,figures,fused,tensorboard,superpixels,sweep,tiff]" \
    && rm -r /src \
    && useradd --uid 1000 ripu

# Compile the kernels of selection once, and not in every container; on another processor a container compiles its own.
ENV NUMBA_CACHE_DIR=/var/cache/ripu
RUN mkdir "$NUMBA_CACHE_DIR" \
    && python -c "import torch; from ripu.functional import fused; fused.is_used(torch.zeros(1))" \
    && chmod -R a+rwX "$NUMBA_CACHE_DIR"

# Files in a mounted folder belong to whoever runs the container: docker run --user "$(id -u):$(id -g)" ...
ENV HOME=/tmp
USER 1000
WORKDIR /work

CMD ["ripu"]
