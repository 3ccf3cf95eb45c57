# An image with moveout, the libraries that it loads and the authorities of TLS: without a shell, without a package
# manager, without root. docs/installing.md says how to build and how to use it.
FROM rust:1.94-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# For `moveout --version`: the repository is not among what is copied.
ARG COMMIT=
ARG DATE=
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    MOVEOUT_COMMIT="$COMMIT" MOVEOUT_DATE="$DATE" cargo build --locked --release && \
    packaging/container-root target/release/moveout /image && \
    packaging/materials /image/usr/share/doc/moveout && \
    cp LICENSE /image/usr/share/doc/moveout/

FROM scratch
ARG COMMIT=
LABEL org.opencontainers.image.title="moveout" \
      org.opencontainers.image.description="Takes everything out of a hosted database before you cancel it" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
USER 65532:65532
ENTRYPOINT ["/usr/bin/moveout"]
CMD ["--help"]
