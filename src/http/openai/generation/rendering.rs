//! What is wrong with a request that the model's chat template does not render.

use crate::http::openai::error::ApiError;
use crate::text::TemplateError;

/// `param`: the field that was rendered.
pub fn refusal(error: TemplateError, param: &'static str) -> ApiError {
    match error {
        TemplateError::Missing => ApiError::Unsupported {
            message: format!(
                "This model has no chat template: send a text to /v1/completions - '{param}'"
            ),
            param: Some(param.into()),
        },
        TemplateError::Refused(reason) => ApiError::invalid(
            format!("The model's chat template refuses it: {reason} - '{param}'"),
            param,
        ),
        TemplateError::Failed(reason) => {
            tracing::warn!(reason, "the chat template did not render what was asked");
            let message = format!("The model's chat template cannot render it - '{param}'");
            ApiError::invalid(message, param)
        }
    }
}
