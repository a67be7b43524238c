# The service in a container: nothing is written outside /tmp and what the configuration names.
#
#   docker build -t streamsvc .
#   docker run --read-only --tmpfs /tmp -v ./pipeline.yaml:/etc/streamsvc/pipeline.yaml:ro streamsvc

ARG PYTHON=3.13-slim

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src

COPY requirements.lock ./
RUN python -m venv /opt/streamsvc \
 && /opt/streamsvc/bin/pip install --require-hashes --only-binary=:all: -r requirements.lock

COPY requirements-build.lock ./
RUN pip install --require-hashes --only-binary=:all: -r requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY streamsvc ./streamsvc
RUN python -m hatchling build -t wheel -d /dist \
 && /opt/streamsvc/bin/pip install --no-deps --no-index /dist/*.whl \
 && /opt/streamsvc/bin/python -m compileall -q /opt/streamsvc

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="streamsvc" \
      org.opencontainers.image.description="Kafka and Kinesis to partitioned Parquet on object storage, exactly once" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/streamsvc /opt/streamsvc
ENV PATH=/opt/streamsvc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    STREAMSVC_LIVEZ=http://127.0.0.1:8080/livez

USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
STOPSIGNAL SIGTERM

# The interpreter is enough for a probe. Set STREAMSVC_LIVEZ where `http.listen` has another port.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['STREAMSVC_LIVEZ'], timeout=4)"]

ENTRYPOINT ["streamsvc"]
CMD ["run", "/etc/streamsvc/pipeline.yaml"]
