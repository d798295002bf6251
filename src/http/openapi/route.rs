//! One route of the description.

use http::StatusCode;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Components, PathItem, Ref, RefOr, Required, ResponseBuilder, Schema};

use super::{AZURE, BEARER, request, response};
use crate::config::RequestLimits;
use crate::http::openai::json::Known;

/// Who may call a route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Whoever has a key.
    Key,
    /// The same; the key may also stand in Azure's header.
    AzureKey,
    /// Everybody.
    Public,
    /// Everybody, unless `--metrics-require-key`.
    Metrics,
    /// Everybody, unless there are no pages (`--no-webui`): then 401 or, with a key, 404.
    Page,
}

/// One method of one path.
pub(super) struct Route {
    path: &'static str,
    method: HttpMethod,
    /// Unique; code generators make function names of it.
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    about: &'static str,
    access: Access,
    /// Names a model: 404 if there is none of that name.
    named: bool,
    /// 304 to those who have it.
    revalidates: bool,
    takes: Option<Takes>,
    gives: Vec<Gives>,
    /// What answers are made of and utoipa does not find: arguments of generic types.
    parts: Vec<(&'static str, MakeSchema)>,
}

struct Takes {
    /// Of the schema among the components.
    name: &'static str,
    known: Known,
    example: Value,
}

/// One form of a good answer.
struct Gives {
    status: StatusCode,
    content_type: &'static str,
    about: &'static str,
    /// Of the schema among the components.
    name: &'static str,
    schema: MakeSchema,
    example: Option<Value>,
}

/// Puts a schema under this name among the components, and refers to it.
type MakeSchema = fn(&'static str, &mut Components) -> RefOr<Schema>;

impl Route {
    fn new(method: HttpMethod, path: &'static str, id: &'static str, tag: &'static str) -> Self {
        let access = Access::Public;
        let (takes, gives, parts) = (None, Vec::new(), Vec::new());
        let (summary, about) = ("", "");
        let (named, revalidates) = (false, false);
        Self {
            path,
            method,
            id,
            tag,
            summary,
            about,
            access,
            named,
            revalidates,
            takes,
            gives,
            parts,
        }
    }

    pub(super) fn get(path: &'static str, id: &'static str, tag: &'static str) -> Self {
        Self::new(HttpMethod::Get, path, id, tag)
    }

    pub(super) fn post(path: &'static str, id: &'static str, tag: &'static str) -> Self {
        Self::new(HttpMethod::Post, path, id, tag)
    }

    pub(super) fn about(mut self, summary: &'static str, about: &'static str) -> Self {
        (self.summary, self.about) = (summary, about);
        self
    }

    pub(super) fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    pub(super) fn named(mut self) -> Self {
        self.named = true;
        self
    }

    pub(super) fn revalidates(mut self) -> Self {
        self.revalidates = true;
        self
    }

    pub(super) fn takes(mut self, (name, known): (&'static str, Known), example: Value) -> Self {
        self.takes = Some(Takes { name, known, example });
        self
    }

    pub(super) fn gives<T: ToSchema>(
        mut self,
        name: &'static str,
        about: &'static str,
        example: Value,
    ) -> Self {
        self.gives.push(Gives {
            status: StatusCode::OK,
            content_type: "application/json",
            about,
            name,
            schema: response::reference::<T>,
            example: Some(example),
        });
        self
    }

    pub(super) fn with<T: ToSchema>(mut self, name: &'static str) -> Self {
        self.parts.push((name, response::reference::<T>));
        self
    }

    /// The same with another status.
    pub(super) fn or_gives<T: ToSchema>(
        self,
        status: StatusCode,
        name: &'static str,
        about: &'static str,
        example: Value,
    ) -> Self {
        let mut route = self.gives::<T>(name, about, example);
        if let Some(last) = route.gives.last_mut() {
            last.status = status;
        }
        route
    }

    /// Or server-sent events, whose data is a schema of that name as JSON, and `[DONE]` at last.
    pub(super) fn streams(self, name: &'static str) -> Self {
        let schema = |name: &str, _: &mut Components| {
            let about = format!("A `{name}` as JSON; `[DONE]` in the last event.");
            let data = ObjectBuilder::new().schema_type(Type::String).description(Some(about));
            ObjectBuilder::new().property("data", data).required("data").into()
        };
        self.gives_other("text/event-stream", "", (name, schema))
    }

    pub(super) fn gives_text(self, content_type: &'static str, about: &'static str) -> Self {
        let schema =
            |_: &str, _: &mut Components| ObjectBuilder::new().schema_type(Type::String).into();
        self.gives_other(content_type, about, ("", schema))
    }

    /// JSON of a form that stands elsewhere.
    pub(super) fn gives_object(self, about: &'static str) -> Self {
        let schema =
            |_: &str, _: &mut Components| ObjectBuilder::new().schema_type(Type::Object).into();
        self.gives_other("application/json", about, ("", schema))
    }

    fn gives_other(
        mut self,
        content_type: &'static str,
        about: &'static str,
        (name, schema): (&'static str, MakeSchema),
    ) -> Self {
        let status = StatusCode::OK;
        self.gives.push(Gives { status, content_type, about, name, schema, example: None });
        self
    }

    /// What this route can answer instead.
    fn errors(&self) -> Vec<StatusCode> {
        use StatusCode as S;
        let mut errors = vec![
            S::FORBIDDEN,
            S::METHOD_NOT_ALLOWED,
            S::URI_TOO_LONG,
            S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            S::INTERNAL_SERVER_ERROR,
            S::BAD_REQUEST,
        ];
        if self.access != Access::Public {
            errors.push(S::UNAUTHORIZED);
        }
        if matches!(self.access, Access::Key | Access::AzureKey) {
            errors.extend([S::REQUEST_TIMEOUT, S::PAYLOAD_TOO_LARGE]);
            errors.extend([S::TOO_MANY_REQUESTS, S::SERVICE_UNAVAILABLE]);
        }
        let may_be_away = self.named || self.access == Access::Page;
        errors.extend(may_be_away.then_some(S::NOT_FOUND));
        errors.extend(self.takes.as_ref().map(|_| S::UNSUPPORTED_MEDIA_TYPE));
        errors
    }

    pub(super) fn add_to(
        self,
        limits: RequestLimits,
        paths: &mut Paths,
        components: &mut Components,
    ) {
        let mut operation = OperationBuilder::new()
            .operation_id(Some(self.id))
            .tag(self.tag)
            .summary(Some(self.summary))
            .description(Some(self.about).filter(|about| !about.is_empty()));
        for name in names_in(self.path) {
            operation = operation.parameter(parameter(name));
        }
        for status in self.errors() {
            operation = operation.response(status.as_str(), response::error(status));
        }
        for status in [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE] {
            if let Some(good) = self.good(status, components) {
                operation = operation.response(status.as_str(), good);
            }
        }
        if self.revalidates {
            operation = operation.response("304", bodiless(StatusCode::NOT_MODIFIED));
        }
        for (name, schema) in &self.parts {
            schema(name, components);
        }
        let head = matches!(self.method, HttpMethod::Get).then(|| self.head());
        operation = operation.securities(Some(securities(self.access)));
        if let Some(Takes { name, known, example }) = self.takes {
            components.schemas.insert(name.to_owned(), request::body(known, limits).into());
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(name)))
                .example(Some(example))
                .build();
            let body = RequestBodyBuilder::new()
                .content("application/json", content)
                .required(Some(Required::True))
                .build();
            operation = operation.request_body(Some(body));
        }
        let mut item = PathItem::new(self.method, operation);
        item.head = head;
        paths.paths.insert(self.path.to_owned(), item);
    }

    /// The same without bodies: whatever answers to GET answers to HEAD.
    fn head(&self) -> Operation {
        let mut operation = OperationBuilder::new()
            .operation_id(Some(format!("{}Head", self.id)))
            .tag(self.tag)
            .summary(Some(format!("{} (head only)", self.summary)))
            .securities(Some(securities(self.access)));
        for name in names_in(self.path) {
            operation = operation.parameter(parameter(name));
        }
        let unchanged = self.revalidates.then_some(StatusCode::NOT_MODIFIED);
        let good = self.gives.iter().map(|gives| gives.status).chain(unchanged);
        for status in good.chain(self.errors()) {
            operation = operation.response(status.as_str(), bodiless(status));
        }
        operation.build()
    }

    fn good(&self, status: StatusCode, components: &mut Components) -> Option<ResponseBuilder> {
        let gives = self.gives.iter().filter(|gives| gives.status == status);
        let mut good = None;
        for Gives { content_type, about, name, schema, example, .. } in gives {
            let schema = Some(schema(name, components));
            let content = ContentBuilder::new().schema(schema).example(example.clone());
            let begun = good.unwrap_or_else(|| {
                let response = response::with_id(ResponseBuilder::new().description(*about));
                let is_api = matches!(self.access, Access::Key | Access::AzureKey);
                if is_api { response::with_api(response) } else { response }
            });
            good = Some(begun.content(*content_type, content.build()));
        }
        good
    }
}

fn bodiless(status: StatusCode) -> ResponseBuilder {
    let reason = status.canonical_reason().unwrap_or_default();
    response::with_id(ResponseBuilder::new().description(format!("{reason}.")))
}

/// The names in braces.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split(['{', '}']).skip(1).step_by(2)
}

fn parameter(name: &str) -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("One of the names in `/v1/models`, percent-encoded."))
        .schema(Some(text))
        .example(Some("gpt-3.5-turbo-instruct".into()))
        .build()
}

fn securities(access: Access) -> Vec<SecurityRequirement> {
    let one = |name: &str| SecurityRequirement::new(name, [""; 0]);
    match access {
        Access::Key => vec![one(BEARER)],
        Access::AzureKey => vec![one(BEARER), one(AZURE)],
        Access::Public | Access::Page => Vec::new(),
        Access::Metrics => vec![SecurityRequirement::default(), one(BEARER)],
    }
}
