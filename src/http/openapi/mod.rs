//! The description of the API: every route, what it takes, and every status it can give, in the form
//! of `OpenAPI`. It is made from what the server itself goes by: request bodies from the declarations they
//! are checked against, answers from the types they are written from, errors from `ApiError`.
//!
//! `docs/openapi.json` is this document as of the last commit; a test compares the two.

mod operations;
mod request;
mod response;
mod route;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Paths, ServerBuilder,
};

use super::App;
use crate::config::RequestLimits;

/// Names of the security schemes.
const BEARER: &str = "bearer";
const AZURE: &str = "azure";

const ABOUT: &str = "Millrace serves one local model with OpenAI's API. Clients of OpenAI work unchanged: \
    give them this server as the base URL (`/v1` included) and a key of `millrace keys add`.\n\n\
    Every error answer has the same form, described as `Error`. Unknown fields of a request are ignored; \
    `null` means the same as leaving a field out. Where there is GET, HEAD gives the same head.";

/// The document of a server with these limits.
pub(super) fn document(limits: RequestLimits) -> OpenApi {
    let info = InfoBuilder::new()
        .title("Millrace")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(
            LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build(),
        ))
        .build();
    let mut components = Components::new();
    response::add_to(&mut components);
    components.add_security_scheme(BEARER, bearer());
    components.add_security_scheme(AZURE, azure());
    let mut paths = Paths::new();
    for operation in operations::all() {
        operation.add_to(limits, &mut paths, &mut components);
    }
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").build()]))
        .tags(Some(
            operations::TAGS
                .map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build()),
        ))
        .paths(paths)
        .components(Some(components))
        .build()
}

fn bearer() -> SecurityScheme {
    let about = "A key of the server, as `millrace keys add` printed it.";
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about));
    SecurityScheme::Http(scheme.build())
}

fn azure() -> SecurityScheme {
    let about = "The same key, where Azure's clients send it.".to_owned();
    SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
        "api-key".to_owned(),
        about,
    )))
}

/// Written out.
fn json(limits: RequestLimits) -> String {
    match serde_json::to_string_pretty(&document(limits)) {
        Ok(json) => json + "\n",
        Err(error) => {
            tracing::error!(%error, "the description of the API could not be written");
            String::new()
        }
    }
}

/// `GET /openapi.json`
pub(super) async fn serve(State(app): State<Arc<App>>) -> Response {
    let json = app.description.get_or_init(|| json(app.config.limits));
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")];
    (headers, json.clone()).into_response()
}

#[cfg(test)]
mod tests;
