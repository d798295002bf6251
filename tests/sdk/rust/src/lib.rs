//! async-openai against a running server: its types are strict, so that a body that reads well here is whole.
#![cfg(test)]

mod chat;
mod completions;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::{ApiErrorResponse, OpenAIError};

/// The server of `OPENAI_BASE_URL` and `OPENAI_API_KEY`, which this SDK reads by itself.
fn client() -> Client<OpenAIConfig> {
    Client::new()
}

/// The server whose model's template knows tools.
fn tools_client() -> Client<OpenAIConfig> {
    let variable = |name| std::env::var(name).unwrap();
    let base = format!("{}/v1", variable("MILLRACE_TOOLS_URL"));
    let config =
        OpenAIConfig::new().with_api_base(base).with_api_key(variable("MILLRACE_TOOLS_KEY"));
    Client::with_config(config)
}

fn stranger() -> Client<OpenAIConfig> {
    Client::with_config(OpenAIConfig::new().with_api_key("sk-wrong"))
}

/// The error that the server sent.
fn refused<T>(answer: Result<T, OpenAIError>) -> ApiErrorResponse {
    match answer {
        Err(OpenAIError::ApiError(error)) => error,
        Err(error) => panic!("no error of the server: {error}"),
        Ok(_) => panic!("not refused"),
    }
}

fn assert_refused<T>(
    answer: Result<T, OpenAIError>,
    status: u16,
    code: Option<&str>,
    param: Option<&str>,
) {
    let error = refused(answer);
    assert_eq!(error.status_code.as_u16(), status, "{error}");
    assert_eq!(
        (error.api_error.code.as_deref(), error.api_error.param.as_deref()),
        (code, param),
        "{error}"
    );
    assert_eq!(error.api_error.r#type.as_deref(), Some("invalid_request_error"));
}
