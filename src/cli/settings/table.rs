//! Every setting once: its name, its default, what it means and why one would change it.
//!
//! The flags, the environment's names, the keys of the file, `--help` and `config/millrace.toml` all
//! come from here. How a value is read and bounded stands in `build.rs`.

/// How a setting is written, on the command line and in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A string; the placeholder in `--help`.
    Text(&'static str),
    /// A number, bare in TOML; the placeholder in `--help`.
    Number(&'static str),
    /// A string that may hold a password: never shown as it was written.
    Url(&'static str),
    /// Strings; commas between them on the command line.
    List(&'static str),
    /// `true` or `false`; on the command line its mere presence is `true`.
    Switch,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// As on the command line. The file has `_` for `-`, the environment `MILLRACE_` and capitals.
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    /// As one would write it on the command line; empty where there is none.
    pub(crate) default: &'static str,
    /// One sentence for `--help` and the file.
    pub(crate) help: &'static str,
    /// More for the file: the unit, when to change it and what it costs.
    pub(crate) why: &'static str,
}

impl Setting {
    /// The key in the file.
    pub(crate) fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// The name in the environment.
    pub(crate) fn variable(&self) -> String {
        format!("MILLRACE_{}", self.key().to_uppercase())
    }

    /// The setting of this name.
    pub(crate) fn by_name(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|s| s.name == name)
    }
}

const fn setting(name: &'static str, form: Form, default: &'static str) -> Setting {
    Setting { name, form, default, help: "", why: "" }
}

impl Setting {
    const fn about(self, help: &'static str, why: &'static str) -> Self {
        Self { help, why, ..self }
    }
}

use Form::{List, Number, Switch, Text, Url};

/// All settings, in the order of `--help` and of the file.
pub(crate) const ALL: &[Setting] = &[
    setting("model", Text("MODEL"), "smollm2-135m-instruct").about(
        "the model: a .gguf file or a folder (also relative to the model folder), a name of `millrace pull --list`, or \
         owner/name of a hub",
        "The first argument of `serve` wins over it. A name that is not there yet is fetched. One file of a\n\
         hub's model: owner/name:FILE.gguf or owner/name:Q4_K_M, with @REVISION behind the name if need be.",
    ),
    setting("model-dir", Text("DIR"), "").about(
        "where `pull` puts models",
        "Empty: millrace/models in the user's cache folder. Files of a hub go to the cache of its own tools,\n\
         below HF_HOME.",
    ),
    setting("offline", Switch, "false").about(
        "never open a connection to fetch anything",
        "A model that is not there is then a fault at start.",
    ),
    setting("host", Text("ADDR"), "127.0.0.1").about(
        "the address to listen on",
        "0.0.0.0 is every address of this machine; keep keys on then.",
    ),
    setting("port", Number("PORT"), "8000").about("the port to listen on; 0 picks a free one", ""),
    setting("admin-listen", Text("ADDR:PORT"), "").about(
        "an address of their own for /health and /metrics, such as 127.0.0.1:9000",
        "They are not served beside the API then. Empty: they are.",
    ),
    setting("ssl-certfile", Text("FILE"), "").about(
        "the server's certificate and those that vouch for it, in PEM form: serve the API over TLS alone",
        "Needs ssl_keyfile. Both are read again when they change. Empty: no TLS.",
    ),
    setting("ssl-keyfile", Text("FILE"), "").about("the certificate's private key, in PEM form", ""),
    setting("api-key-file", Text("FILE"), "").about(
        "the key file, as `millrace keys add` writes it",
        "Read again when it changes. Besides it, or instead, the environment's MILLRACE_API_KEY is one key.",
    ),
    setting("rate-limit-store", Url("URL"), "").about(
        "where replicas share the limits of keys, such as redis://127.0.0.1:6379/0 (Redis or Valkey; rediss: TLS)",
        "Without a password it may be a flag; with one it belongs in this file or the environment. While the\n\
         store is away, each server keeps to the limits by itself. Empty: always.",
    ),
    setting("allow-unauthenticated", Switch, "false").about(
        "serve without keys to whoever reaches the port",
        "Only on a loopback address, and only for requests that name it as their host.",
    ),
    setting("i-know-this-is-open", Switch, "false").about(
        "with allow-unauthenticated: on any address, for any host name",
        "Whoever reaches the port can then use the model.",
    ),
    setting("metrics-require-key", Switch, "false").about(
        "ask for a key on /metrics too",
        "Metrics hold no prompts and no keys, but they do tell how busy the server is.",
    ),
    setting("no-webui", Switch, "false").about(
        "do not serve the pages for browsers, such as the playground at /",
        "They are part of the binary, need no key by themselves, and call the API with the key that one types in.",
    ),
    setting("cors-origins", List("A,B"), "").about(
        "origins whose pages may call the server, such as https://app.example.com, or *",
        "Empty: no browser page of another origin may.",
    ),
    setting("served-model-name", List("A,B"), "").about(
        "names that the model answers to; the first one is shown",
        "Empty: its own name, and OpenAI's legacy completion names, so that old code runs unchanged.",
    ),
    setting(
        "instruct-names",
        List("A,B"),
        "text-davinci-002,text-davinci-003,gpt-3.5-turbo-instruct",
    )
    .about(
        "names whose text prompts are put into the model's chat template; none turns it off",
        "These were instruction-following models at OpenAI. Under any other name a prompt goes in as it is.",
    ),
    setting("max-model-len", Number("N"), "auto").about(
        "longest sequence, prompt and answer together, in tokens",
        "auto: what the model was trained for, or what the KV cache holds. Shorter saves nothing by itself.",
    ),
    setting("default-max-tokens", Number("N"), "1024").about(
        "longest answer of a chat whose request names no bound, in tokens",
        "Where the context has room for it. Completions without max_tokens get OpenAI's 16.",
    ),
    setting("max-num-seqs", Number("N"), "64").about(
        "sequences computed at once; more wait",
        "More raises throughput and slows each one down.",
    ),
    setting("max-num-batched-tokens", Number("N"), "auto").about(
        "tokens in one step of the engine",
        "auto: up to 256, and while somebody waits for the next token only as much of the prompts as keeps\n\
         streams at half their pace, for each prompt that waits. Less keeps streams smoother, more reads\n\
         prompts faster. Below max_num_seqs it is legal: the step takes that many.",
    ),
    setting("max-queue-requests", Number("N"), "1024").about(
        "requests that may wait; past it the answer is 429 at once",
        "A short queue sends clients elsewhere sooner.",
    ),
    setting("max-queue-tokens", Number("N"), "1048576").about(
        "prompt tokens that may wait; past it the answer is 429 at once",
        "An idle server takes one prompt above it.",
    ),
    setting("kv-cache-memory", Text("SIZE"), "auto").about(
        "memory for keys and values of running sequences, such as 2GiB or 512MB",
        "auto: 2 GiB or a quarter of the machine's (or container's) memory, the less. Too small a cache\n\
         makes sequences wait and be computed twice.",
    ),
    setting("kv-cache-dtype", Text("TYPE"), "f16").about(
        "number format of the KV cache: f16 or f32",
        "f32 takes twice the memory; it is for comparisons.",
    ),
    setting("no-prefix-caching", Switch, "false").about(
        "forget computed prompts at once instead of keeping them for the next one",
        "Computed prompts stay in the KV cache while nobody needs the room; each key finds only its own.",
    ),
    setting("seed", Number("N"), "auto").about(
        "makes the seeds of requests that bring none repeatable",
        "auto: drawn at random for each request and told in the answer.",
    ),
    setting("threads", Number("N"), "auto").about(
        "threads that compute",
        "auto: one per core. More than there are cores is slower.",
    ),
    setting("device", Text("DEVICE"), "auto").about(
        "where the model runs: auto, cpu, cuda or metal",
        "auto: the CPU, unless this build has a device of another kind.",
    ),
    setting("kernels", Text("TIER"), "auto").about(
        "CPU kernels: auto, avx512, avxvnni, avx2, scalar or candle (neon: not built yet)",
        "auto: the fastest that this processor runs. scalar and candle are for comparisons.",
    ),
    setting("quantize", Text("TYPE"), "auto").about(
        "what the float weights of a model folder become when loaded: auto, q8_0, q4_k or none",
        "auto: q8_0 on the CPU, none elsewhere. A GGUF is taken as it is.",
    ),
    setting("shutdown-delay-s", Number("SECONDS"), "0").about(
        "from SIGTERM until new requests are refused, in seconds; /health/ready says 503 at once",
        "Behind a balancer: as long as it takes to notice.",
    ),
    setting("shutdown-timeout-s", Number("SECONDS"), "30").about(
        "from then until unfinished requests are failed, in seconds",
        "Keep both together below what the supervisor waits before SIGKILL.",
    ),
    setting("engine-stall-timeout-s", Number("SECONDS"), "30").about(
        "without progress for this long while there is work, the engine counts as hung, in seconds",
        "Health then turns 503. Above the longest step that is normal on this machine.",
    ),
    setting("client-stall-timeout-s", Number("SECONDS"), "30").about(
        "a client that reads nothing for this long is dropped, in seconds",
        "Until then its sequence is paused and keeps its memory.",
    ),
    setting("sse-ping-interval-s", Number("SECONDS"), "10").about(
        "between the comments that keep a silent stream open, in seconds",
        "Below the idle timeout of every proxy on the way.",
    ),
    setting("max-connections", Number("N"), "4096").about(
        "connections open at once; more wait to be accepted",
        "Each takes one file descriptor: see ulimit -n.",
    ),
    setting("max-body-bytes", Text("SIZE"), "8MiB").about(
        "largest request body; past it the answer is 413",
        "",
    ),
    setting("max-n", Number("N"), "20").about(
        "samples of one prompt that a request may ask for with n and best_of, 128 at most",
        "Each is a sequence of its own beside the others.",
    ),
    setting("max-fan-out", Number("N"), "1024").about(
        "sequences that one request may ask for: prompts times samples, 4096 at most",
        "They wait in the queue as one request and run as max_num_seqs allows.",
    ),
    setting("max-logprobs", Number("N"), "5").about(
        "alternatives for each token that logprobs and prompt_logprobs may ask for, 20 at most",
        "5 is OpenAI's bound for completions. More makes answers longer.",
    ),
    setting("log-format", Text("FORMAT"), "text").about("lines of the log: text or json", ""),
    setting("log-level", Text("LEVEL"), "info").about(
        "error, warn, info, debug, trace or off; also target=level, with commas between",
        "No level logs prompts, answers or keys.",
    ),
    setting("otlp-endpoint", Text("URL"), "").about(
        "a collector that traces are sent to by OTLP over HTTP, such as http://127.0.0.1:4318",
        "Empty: that of OpenTelemetry's variables (OTEL_EXPORTER_OTLP_ENDPOINT and others), if they are set, else\n\
         none. /v1/traces is put behind it. Needs a build with the feature otel.",
    ),
    setting("quiet", Switch, "false").about(
        "on stderr, say only what went wrong",
        "No banner and no progress; of the log errors alone, unless log_level says otherwise.",
    ),
];
