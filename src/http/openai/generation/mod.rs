//! What all endpoints share that let the model go on with a text, from the fields of a request to the
//! bytes of its answer. An endpoint adds its own fields, its prompts, and how a choice is written.
//!
//! * [`declared`]: the request's shared fields; [`fields`]: what they say, bounded; [`later`]: those that are known, not built.
//! * [`call`]: one request on its way, from the route to the engine.
//! * [`prepare`]: prompts, already tokens, to what the engine takes.
//! * [`rendering`]: why the chat template does not render a request.
//! * [`assemble`]: the engine's events to what each adds to its choice.
//! * [`extras`]: what vLLM tells beside OpenAI's fields.
//! * [`answer`]: that to a body or a stream, in the words of a [`answer::Wire`].

pub mod answer;
pub mod assemble;
pub mod call;
pub mod declared;
pub mod extras;
pub mod fields;
pub mod later;
pub mod misspelt;
pub mod prepare;
pub mod rendering;
pub mod types;
