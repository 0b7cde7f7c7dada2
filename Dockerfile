# Note: no container engine was at hand where this file was written; it is unbuilt. Please report what it needs.
#
#   docker build -t reveille .
#   docker run --network host --stop-timeout 90 --read-only --cap-drop ALL --security-opt no-new-privileges \
#     -v /etc/reveille:/etc/reveille:ro -v reveille-state:/var/lib/reveille reveille
#
# --network host: SIP carries addresses, and `advertise` has to name one that the world reaches. --stop-timeout has to be
# above drain.deadline (60s): until then bindings are removed at their registrars and credentials are wiped.
#
# The daemon confines itself with Landlock and seccomp, and keeps its key in memfd_secret. Docker's default seccomp profile lets
# these calls through (version 23 and later, as far as we know); a stricter one has to allow landlock_create_ruleset,
# landlock_add_rule, landlock_restrict_self, seccomp and memfd_secret. What is refused is told at start and on /readyz.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# aws-lc is C and assembly; the slim image has the compiler, but not these two.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends cmake make \
 && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin reveille \
 && cp target/release/reveille /usr/local/bin/reveille

FROM debian:12-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 10001 reveille \
 && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/reveille --shell /usr/sbin/nologin reveille \
 && install --directory --owner reveille --group reveille --mode 700 /var/lib/reveille
COPY --from=build /usr/local/bin/reveille /usr/local/bin/reveille
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
VOLUME /var/lib/reveille
# As in the default configuration: HTTPS API, SIP over UDP and TCP, SIP over TLS. Metrics stay on the loopback.
EXPOSE 8443/tcp 5060/udp 5060/tcp 5061/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["/usr/local/bin/reveille", "status"]
ENTRYPOINT ["/usr/local/bin/reveille"]
CMD ["serve", "--config", "/etc/reveille/reveille.toml"]
