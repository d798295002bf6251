//! The API reference at `/docs`: the description of the API, laid out for reading. Made once, from the
//! document that `/openapi.json` serves; it needs no script and nothing from elsewhere.

mod view;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use minijinja::value::Serde;

use self::view::View;
use super::{App, openapi, webui};
use crate::config::RequestLimits;

const TEMPLATE: &str = include_str!("docs/page.html");
const STYLE: &str = include_str!("docs/page.css");

/// `GET /docs`
pub(super) async fn page(State(app): State<Arc<App>>) -> Response {
    let page = app.reference.get_or_init(|| match render(app.config.limits) {
        Ok(page) => page,
        Err(error) => {
            tracing::error!(%error, "the API reference could not be laid out");
            String::new()
        }
    });
    let style = webui::source(STYLE);
    let policy = format!(
        "default-src 'none'; style-src '{style}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    (webui::headers(&policy, page), page.clone()).into_response()
}

fn render(limits: RequestLimits) -> Result<String, minijinja::Error> {
    let mut layout = minijinja::Environment::new();
    // By its name, everything in it is escaped.
    layout.add_template("page.html", TEMPLATE)?;
    let view = View::of(&openapi::document(limits));
    let page = minijinja::context! { style => STYLE, ..Serde(view) };
    layout.get_template("page.html")?.render(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_route_field_and_error_and_runs_no_script() {
        let page = render(RequestLimits::default()).unwrap().replace("&#x2f;", "/");
        for part in [
            "/openai/deployments/{id}/completions",
            "<code>stream_options.include_usage</code>",
            "#error-429",
            "id=\"error-429\"",
            "context_length_exceeded",
            "curl $URL/v1/completions",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for denied in ["<script", " style=", " src=", "javascript:", "{{", "http://www", "https://"]
        {
            assert!(!page.contains(denied), "{denied}");
        }
    }
}
