# One image for every command of DTS: docs/operations/containers.md
FROM python:3.13.9-slim-bookworm AS build
WORKDIR /build
COPY requirements/build.lock requirements/cluster.lock requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.lock \
    && python -m venv /opt/dts \
    && /opt/dts/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/cluster.lock
COPY pyproject.toml LICENSE ./
COPY migrations migrations
COPY src src
RUN /opt/build/bin/pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/dts/bin/pip install --no-cache-dir --no-index --no-deps dist/*.whl

FROM python:3.13.9-slim-bookworm
RUN useradd --uid 10001 --user-group --create-home --home-dir /var/lib/dts dts
COPY --from=build /opt/dts /opt/dts
COPY deploy/docker/healthcheck.py /opt/dts/healthcheck.py
ENV PATH=/opt/dts/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DTS_LISTEN=0.0.0.0 \
    DTS_DATABASE=/var/lib/dts/dts.db
USER 10001:10001
WORKDIR /var/lib/dts
VOLUME /var/lib/dts
EXPOSE 50052 50053 50054 8080 8081 8082
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 CMD ["/opt/dts/bin/python", "/opt/dts/healthcheck.py"]
ENTRYPOINT ["dts"]
CMD ["up"]
