//! The table of routes: what the router and the document of the API are both made of.
//!
//! A module adds a route with a few words about it, and both follow: there is no route that the
//! document does not know, and none in the document that nobody serves. Left out: the shapes of bodies
//! and answers, which are named here and are in `openapi/*.json`, and the pages.

use axum::{
    Router,
    handler::Handler,
    http::Method,
    routing::{MethodFilter, MethodRouter, any, on},
};

use super::App;

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Open,
    /// Whoever has a key of the API.
    Key,
    /// A sender, by what its source asks for.
    Sender,
}

/// What a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    None,
    /// JSON of this schema.
    Json(&'static str),
    /// The same, or nothing.
    Optional(&'static str),
    /// A form with a file, of this schema.
    Form(&'static str),
    /// Whatever the sender sends.
    Any,
}

/// What an answer of success is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Success {
    /// JSON of this schema.
    Json(&'static str),
    /// A page of a list of these.
    Page(&'static str),
    /// Server-sent events.
    Events,
    /// Either: JSON of this schema, or server-sent events where the request asks for them.
    JsonOrEvents(&'static str),
    /// Bytes of any type.
    Bytes,
    Text,
    /// What the sender is told: the contract's answer, or what it wants to hear in its place.
    Receipt,
}

/// What is said about a route.
#[derive(Clone, Debug)]
pub(super) struct Doc {
    pub(super) says: &'static str,
    /// Names of entries in `openapi/parameters.json`.
    pub(super) query: &'static [&'static str],
    pub(super) takes: Takes,
    pub(super) success: Success,
    /// Statuses of errors beside those that follow from the rest.
    pub(super) statuses: &'static [u16],
}

/// A route that takes no query and no body, and answers JSON of this schema.
pub(super) fn answers(schema: &'static str, says: &'static str) -> Doc {
    succeeds(Success::Json(schema), says)
}

/// A route that answers pages of a list, and takes this query.
pub(super) fn lists(
    schema: &'static str,
    query: &'static [&'static str],
    says: &'static str,
) -> Doc {
    succeeds(Success::Page(schema), says).query(query)
}

pub(super) fn succeeds(success: Success, says: &'static str) -> Doc {
    Doc { says, query: &[], takes: Takes::None, success, statuses: &[] }
}

impl Doc {
    pub(super) fn query(self, query: &'static [&'static str]) -> Doc {
        Doc { query, ..self }
    }

    /// With a body, which must be there.
    pub(super) fn takes(self, schema: &'static str) -> Doc {
        Doc { takes: Takes::Json(schema), ..self }
    }

    /// With a body that may be left out.
    pub(super) fn optional(self, schema: &'static str) -> Doc {
        Doc { takes: Takes::Optional(schema), ..self }
    }

    pub(super) fn form(self, schema: &'static str) -> Doc {
        Doc { takes: Takes::Form(schema), ..self }
    }

    pub(super) fn anything(self) -> Doc {
        Doc { takes: Takes::Any, ..self }
    }

    /// Errors that the state of things may lead to, by their statuses.
    pub(super) fn or(self, statuses: &'static [u16]) -> Doc {
        Doc { statuses, ..self }
    }
}

/// One method of one path.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// What the document sorts by.
    pub(super) group: &'static str,
    pub(super) access: Access,
    pub(super) doc: Doc,
}

/// Routes, with what is said about them.
#[derive(Debug)]
pub(super) struct Routes {
    group: &'static str,
    access: Access,
    router: Router<App>,
    operations: Vec<Operation>,
}

impl Routes {
    /// For callers with a key.
    pub(super) fn of(group: &'static str) -> Routes {
        Routes::with(group, Access::Key)
    }

    pub(super) fn with(group: &'static str, access: Access) -> Routes {
        Routes { group, access, router: Router::new(), operations: Vec::new() }
    }

    pub(super) fn get<H, T>(self, path: &'static str, handler: H, doc: Doc) -> Routes
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add(&[Method::GET], path, on(MethodFilter::GET, handler), &doc)
    }

    pub(super) fn post<H, T>(self, path: &'static str, handler: H, doc: Doc) -> Routes
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add(&[Method::POST], path, on(MethodFilter::POST, handler), &doc)
    }

    pub(super) fn patch<H, T>(self, path: &'static str, handler: H, doc: Doc) -> Routes
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add(&[Method::PATCH], path, on(MethodFilter::PATCH, handler), &doc)
    }

    pub(super) fn delete<H, T>(self, path: &'static str, handler: H, doc: Doc) -> Routes
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add(&[Method::DELETE], path, on(MethodFilter::DELETE, handler), &doc)
    }

    /// Whatever the method is: the handler decides which of them are good for something, and these are.
    pub(super) fn any<H, T>(
        self,
        methods: &[Method],
        path: &'static str,
        handler: H,
        doc: Doc,
    ) -> Routes
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add(methods, path, any(handler), &doc)
    }

    fn add(
        mut self,
        methods: &[Method],
        path: &'static str,
        handlers: MethodRouter<App>,
        doc: &Doc,
    ) -> Routes {
        self.operations.extend(methods.iter().map(|method| Operation {
            method: method.clone(),
            path,
            group: self.group,
            access: self.access,
            doc: doc.clone(),
        }));
        Routes { router: self.router.route(path, handlers), ..self }
    }

    pub(super) fn merge(mut self, other: Routes) -> Routes {
        self.operations.extend(other.operations);
        Routes { router: self.router.merge(other.router), ..self }
    }

    pub(super) fn into_router(self) -> Router<App> {
        self.router
    }

    pub(super) fn into_operations(self) -> Vec<Operation> {
        self.operations
    }
}
