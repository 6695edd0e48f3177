# An environment's image with its data: `docker build -f envs/docker/data.Dockerfile --build-arg BASE=sdar-env-alfworld FOLDER`.
# What FOLDER holds becomes /data, owned by root and readable by the service: an image's tag then names code and data.
ARG BASE=sdar-env-alfworld

# hadolint ignore=DL3006
FROM ${BASE}
COPY --chown=0:0 --chmod=0755 . /data
