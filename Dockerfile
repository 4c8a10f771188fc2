# One image with both binaries: the controller and the node run holdfast, the
# keeper and the mounter run holdfast-mount.
#
# RUN lines are in exec form, so that the builder needs go and no shell: the
# image test (deploy/image) gives one that has nothing else. Exec form expands
# no variables, hence ENV.
ARG GO_IMAGE=golang:1.26-bookworm

# The builder runs as what it is and cross-compiles: no emulation.
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN ["go", "mod", "download"]
COPY . .
# One ARG a line: buildah 1.28 takes only the first of several.
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=unreleased
ENV CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    GOFLAGS="-trimpath -buildvcs=false '-ldflags=-s -w -X main.version=${VERSION}'"
RUN ["go", "build", "-o", "/out/", "./cmd/holdfast", "./cmd/holdfast-mount"]

# Nothing but ours: static binaries need no libc, and no public CA certificates
# either, for they speak only to the cluster, whose CA is mounted with its keys.
FROM scratch
COPY --from=build /out/ /usr/local/bin/
# The keeper alone is root, and its pod says so (runAsUser: 0).
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/holdfast"]
