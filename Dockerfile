# The bridge in a container: one static program, no shell, not root.
#
#   docker build -t kmp2mqtt .
#   docker run --read-only --cap-drop ALL --volume kmp2mqtt-data:/data \
#     --env METERS=house=tcp://192.0.2.7:2001 --env MQTT_URL=mqtt://192.0.2.10 kmp2mqtt
#   docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7,linux/arm/v6,linux/386,linux/riscv64 .
#
# The build runs on the builder's own platform and Go cross-compiles, so no emulation is needed; nothing of the result
# comes from a base image, so it can be made for every platform that Go knows.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
# Where modules come from, for places that have a proxy of their own.
ARG GOPROXY=https://proxy.golang.org,direct
ARG GOSUMDB=sum.golang.org
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
# The image's directories that can be written to. /data: what must survive a restart; mount a volume there, a new one
# takes over owner and mode. /tmp: for the demo; with --read-only mount a tmpfs there, or run no demo.
RUN install -d -m 1777 /directories/tmp && install -d -o 65532 -g 65532 -m 700 /directories/data
ARG TARGETOS TARGETARCH TARGETVARIANT
ARG VERSION COMMIT
# The flags are those of the Makefile, which says why.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    if [ "$TARGETARCH" = arm ]; then export GOARM="${TARGETVARIANT#v}"; fi; \
    CGO_ENABLED=0 GOOS="$TARGETOS" GOARCH="$TARGETARCH" \
    go build -tags nethttpomithttp2 -trimpath -gcflags all=-l -gcflags kmp2mqtt/...= \
      -ldflags "-s -w ${VERSION:+-X main.version=$VERSION} ${COMMIT:+-X main.commit=$COMMIT}" -o /kmp2mqtt .

FROM scratch
ARG VERSION COMMIT
LABEL org.opencontainers.image.title="kmp2mqtt" \
      org.opencontainers.image.description="Reads Kamstrup meters over KMP and publishes to MQTT and Home Assistant" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
# Who may sign the certificate of a broker or of Home Assistant, unless MQTT_CA_FILE says so. Time zones are in the program.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY LICENSE NOTICE /usr/share/doc/kmp2mqtt/
COPY --from=build /directories/ /
COPY --from=build /kmp2mqtt /usr/local/bin/kmp2mqtt
ENV DATA_DIR=/data
USER 65532:65532
# The page, if HTTP_LISTEN lets it be reached from outside.
EXPOSE 8099
STOPSIGNAL SIGTERM
# Alive: it answers and no line is stuck. A broker or a meter that is away makes no container unhealthy, for no restart
# would help; /readyz tells those.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/kmp2mqtt", "health"]
ENTRYPOINT ["/usr/local/bin/kmp2mqtt"]
