# The gateway as an image: docker build -t k2think-api .
#
# The base has a full version, so that it changes only when this line does. To have the very same bytes each time, add
# its digest, as in python:3.13.15-slim-bookworm@sha256:…; this prints it:
#   docker buildx imagetools inspect python:3.13.15-slim-bookworm
ARG PYTHON_IMAGE=python:3.13.15-slim-bookworm


FROM ${PYTHON_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1
WORKDIR /build

# Two environments: what builds the package stays here, what runs it goes into the image. Neither gets pip.
# There is no compiler here: where a package has no wheel, this must fail and not go looking for one.
COPY requirements.txt requirements-build.txt ./
RUN python -m venv --without-pip /opt/build \
 && python -m venv --without-pip /opt/k2think \
 && pip --python /opt/build/bin/python install --require-hashes --no-deps --only-binary=:all: -r requirements-build.txt \
 && pip --python /opt/k2think/bin/python install --require-hashes --no-deps --only-binary=:all: -r requirements.txt

# Changes most often, so it comes last. pip compiles what it installs: the image need not be written to at the start.
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/build/bin/python -m hatchling build -t wheel -d dist \
 && pip --python /opt/k2think/bin/python install --no-deps --no-index dist/*.whl


FROM ${PYTHON_IMAGE}

LABEL org.opencontainers.image.title="K2Think API Proxy" \
      org.opencontainers.image.description="An OpenAI-compatible gateway for MBZUAI's K2-Think reasoning model." \
      org.opencontainers.image.licenses="MIT"

# Fixed numbers, so that files on the host can be given to this user. Everybody may write to /app, so that the container
# can also run as the owner of those files (docker run --user): an update of /app/tokens.txt puts files beside it.
RUN groupadd --gid 10001 k2think \
 && useradd --uid 10001 --gid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin k2think \
 && install -d -o 10001 -g 10001 -m 0777 /app /app/data

COPY --from=build /opt/k2think /opt/k2think
# The documented commands, for `docker exec`.
COPY k2think_proxy.py get_tokens.py check_config_simple.py /app/

# Everything is compiled already, and with --read-only nothing can be.
ENV PATH=/opt/k2think/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# .env, tokens.txt and accounts.txt are looked for here. Mount them; nothing of the kind is in the image.
WORKDIR /app
USER 10001:10001
EXPOSE 8001
# A stop lets running answers end (DRAIN_TIMEOUT): give it longer than that, as in docker stop --time 50.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["k2think", "health"]
# Another command of k2think takes the place of `serve`: docker run --rm k2think-api check
ENTRYPOINT ["k2think"]
CMD ["serve"]
