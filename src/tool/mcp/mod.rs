//! MCP servers: tools that somebody else has, over streamable HTTP or in the session's sandbox.
//!
//! Invariants: what a server says of its tools is data, also its hints: each call counts as an effect;
//! lists, answers and waits have bounds; a call is sent once, and whoever does not hear of its end
//! does not send it again. Left out: which servers there are, who the session is to them, and what
//! may be called.

mod answer;
mod program;

use std::{collections::BTreeSet, time::Duration};

use ring::digest;
use rmcp::{
    RoleClient, ServiceExt as _,
    model::{CallToolRequestParams, ClientCapabilities, ClientConfig, Implementation},
    service::{ClientInitializeError, RunningService, ServiceError},
    transport::streamable_http_client::{
        StreamableHttpClientTransport, StreamableHttpClientTransportConfig, StreamableHttpError,
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{Host, output, sandbox::Running};
use crate::{
    clock::Clock,
    domain::{
        event::{Block, plain_text},
        redact,
        text::{first_chars, hex},
    },
};

/// Bounds of what servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seconds for reaching a server, and for its list of tools.
    pub connect_seconds: u64,
    /// Seconds that one call may take.
    pub call_seconds_max: u64,
    /// Bytes of one answer that are read.
    pub answer_bytes_max: usize,
    /// Tools of one server that are offered.
    pub tools_max: usize,
    /// Seconds after which a server is asked for its tools again.
    pub tools_seconds: u64,
    /// Hosts near by, and those that speak plain HTTP, that may be gone to.
    pub allowed_private_hosts: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_seconds: 20,
            call_seconds_max: 300,
            answer_bytes_max: 4 << 20,
            tools_max: 128,
            tools_seconds: 300,
            allowed_private_hosts: Vec::new(),
        }
    }
}

/// Pages of a list of tools.
const PAGES_MAX: usize = 50;

/// Of what a server says about itself, in an error.
const SAID_CHARS_MAX: usize = 300;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not know who we are, or not as somebody who may.
    #[error("{0}")]
    Unauthorized(String),
    /// Nothing was sent, or it is known that it came to nothing.
    #[error("{0}")]
    Failed(String),
    /// It was sent, and nobody knows what became of it.
    #[error("{0}")]
    Unknown(String),
}

impl Error {
    /// Without what the server was told in confidence, should it say that back.
    fn hiding(self, token: Option<&SecretString>) -> Error {
        match self {
            Error::Unauthorized(why) => Error::Unauthorized(hidden(&why, token)),
            Error::Failed(why) => Error::Failed(hidden(&why, token)),
            Error::Unknown(why) => Error::Unknown(hidden(&why, token)),
        }
    }
}

fn hidden(text: &str, token: Option<&SecretString>) -> String {
    redact::without(text, token.map(secrecy::ExposeSecret::expose_secret))
}

/// A tool as its server describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: String,
    pub input_schema: Value,
    /// Of everything that the model is told.
    pub hash: String,
}

/// Longest name that the protocol knows.
const NAME_CHARS_MAX: usize = 128;

impl Tool {
    /// Why no model can be told of it: a provider that refused it would refuse the whole request.
    pub fn unfit(&self) -> Option<&'static str> {
        let is_plain = |char: char| char.is_ascii_alphanumeric() || "_-./".contains(char);
        if !(1..=NAME_CHARS_MAX).contains(&self.name.len()) || !self.name.chars().all(is_plain) {
            return Some("its name is not one of 1 to 128 letters, digits and `_-./`");
        }
        let schema = &self.input_schema;
        let is_object = schema["type"] == "object"
            && (schema["properties"].is_null() || schema["properties"].is_object())
            && ["oneOf", "anyOf", "allOf"].iter().all(|key| schema[key].is_null());
        (!is_object).then_some("its `inputSchema` does not describe one object")
    }
}

/// How a server is reached.
#[derive(Debug)]
pub enum Way {
    Http {
        client: reqwest::Client,
        url: String,
        token: Option<SecretString>,
    },
    /// A program in a sandbox that speaks over its standard input and output.
    Program(Box<Running>),
}

/// A connection to a server, as long as it is kept.
#[derive(Debug)]
pub struct Connection {
    service: RunningService<RoleClient, ClientConfig>,
    options: Options,
    clock: Clock,
    /// A server may say it back.
    token: Option<SecretString>,
}

impl Connection {
    /// Reaches a server and says hello.
    pub async fn open(way: Way, options: &Options, clock: &Clock) -> Result<Connection, Error> {
        let patience = Duration::from_secs(options.connect_seconds);
        let token = match &way {
            Way::Http { token, .. } => token.clone(),
            Way::Program(_) => None,
        };
        let opening = Box::pin(open(way, options));
        let opened = clock.timeout(patience, opening).await;
        let opened = opened.map_err(|_| too_long("reaching it", patience))?;
        let service = opened.map_err(|error| error.hiding(token.as_ref()))?;
        let (options, clock) = (options.clone(), clock.clone());
        Ok(Connection { service, options, clock, token })
    }

    /// Whether it is of no use any more.
    pub fn is_closed(&self) -> bool {
        self.service.is_closed() || self.service.peer().is_transport_closed()
    }

    /// The server's tools, in its order. One that comes twice counts once.
    pub async fn tools(&self) -> Result<Vec<Tool>, Error> {
        let patience = Duration::from_secs(self.options.connect_seconds);
        let listed = self.clock.timeout(patience, Box::pin(self.list())).await;
        let listed = listed.map_err(|_| too_long("its list of tools", patience))?;
        listed.map_err(|error| error.hiding(self.token.as_ref()))
    }

    async fn list(&self) -> Result<Vec<Tool>, Error> {
        let (mut tools, mut names, mut cursor) = (Vec::new(), BTreeSet::new(), None);
        for _ in 0..PAGES_MAX {
            let params = rmcp::model::PaginatedRequestParams::default().with_cursor(cursor);
            let page = self.service.peer().list_tools(Some(params)).await;
            let page = page.map_err(|error| asked(&error))?;
            for tool in page.tools {
                if tools.len() >= self.options.tools_max {
                    return Ok(tools);
                }
                let schema = Value::Object((*tool.input_schema).clone());
                let said = tool.description.as_deref().unwrap_or_default();
                let tool = describe(&tool.name, &hidden(said, self.token.as_ref()), schema);
                if names.insert(tool.name.clone()) {
                    tools.push(tool);
                }
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        Ok(tools)
    }

    /// Calls a tool. Answers what the model is told, and whether that is an error.
    pub async fn call(
        &self,
        tool: &str,
        input: &Value,
        media_bytes_max: usize,
    ) -> Result<(Vec<Block>, bool), Error> {
        let called = self.call_it(tool, input, media_bytes_max).await;
        let (mut blocks, is_error) = called.map_err(|error| error.hiding(self.token.as_ref()))?;
        for block in &mut blocks {
            if let Block::Text { text } = block {
                *text = hidden(text, self.token.as_ref());
            }
        }
        Ok((blocks, is_error))
    }

    async fn call_it(
        &self,
        tool: &str,
        input: &Value,
        media_bytes_max: usize,
    ) -> Result<(Vec<Block>, bool), Error> {
        let mut params = CallToolRequestParams::new(tool.to_owned());
        params.arguments = input.as_object().cloned();
        let patience = Duration::from_secs(self.options.call_seconds_max);
        let calling = Box::pin(self.service.peer().call_tool(params));
        let result = match self.clock.timeout(patience, calling).await {
            Err(_) => {
                let n = patience.as_secs();
                return Err(Error::Unknown(format!("it did not answer within {n} s")));
            }
            Ok(Ok(result)) => result,
            // It answered, and what it answered is an error of the protocol.
            Ok(Err(ServiceError::McpError(error))) => {
                let (said, _) = first_chars(&error.message, SAID_CHARS_MAX);
                return Ok((
                    vec![Block::text(format!("the server refused the call: {said}"))],
                    true,
                ));
            }
            Ok(Err(error)) => {
                return Err(match asked(&error) {
                    Error::Failed(why) => Error::Unknown(why),
                    other => other,
                });
            }
        };
        let is_error = result.is_error == Some(true);
        Ok((answer::blocks(result, media_bytes_max), is_error))
    }
}

/// What a model is told of an answer: text that is too long is a file, of which it sees both ends.
pub async fn bounded(
    host: &impl Host,
    tool: &str,
    blocks: Vec<Block>,
) -> Result<Vec<Block>, super::Error> {
    let bytes_max = host.options().answer_bytes_max;
    let text = plain_text(&blocks);
    if text.len() <= bytes_max {
        return Ok(blocks);
    }
    let mut rest: Vec<Block> =
        blocks.into_iter().filter(|block| !matches!(block, Block::Text { .. })).collect();
    let workspace = host.workspace().await?;
    let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '-' };
    let name: String = tool.chars().take(40).map(plain).collect();
    let cut = super::on_files(move |_| output::bounded(&workspace, &name, text, bytes_max)).await?;
    rest.insert(0, Block::text(cut));
    Ok(rest)
}

async fn open(
    way: Way,
    options: &Options,
) -> Result<RunningService<RoleClient, ClientConfig>, Error> {
    let us = Implementation::new("bellpull", env!("CARGO_PKG_VERSION"));
    // Nothing that a server could ask of us: no sampling, no roots, no questions to people.
    let us = ClientConfig::new(ClientCapabilities::default(), us);
    match way {
        Way::Http { client, url, token } => {
            let mut config = StreamableHttpClientTransportConfig::with_uri(url);
            config.auth_header = token.map(|token| token.expose_secret().to_owned());
            config.max_json_response_size = options.answer_bytes_max;
            config.max_sse_event_size = options.answer_bytes_max;
            config.max_error_response_size = 4096;
            let transport = StreamableHttpClientTransport::with_client(client, config);
            us.serve(transport).await.map_err(|error| opened(&error))
        }
        Way::Program(running) => {
            let talk = program::Talk::new(running, options.answer_bytes_max);
            us.serve(talk).await.map_err(|error| opened(&error))
        }
    }
}

fn describe(name: &str, description: &str, input_schema: Value) -> Tool {
    let description = description.to_owned();
    let all = serde_json::json!([name, description, input_schema]).to_string();
    let hash = digest::digest(&digest::SHA256, all.as_bytes());
    let hash = hex(&hash.as_ref()[..16]);
    Tool { name: name.to_owned(), description, input_schema, hash }
}

fn too_long(what: &str, patience: Duration) -> Error {
    Error::Failed(format!("{what} took longer than {} s", patience.as_secs()))
}

fn opened(error: &ClientInitializeError) -> Error {
    if error.is_authorization_required() {
        return unauthorized();
    }
    match error {
        ClientInitializeError::TransportError { error, .. } => sent(error.error.as_ref()),
        ClientInitializeError::JsonRpcError(error) => {
            Error::Failed(format!("it refused: {}", first_chars(&error.message, SAID_CHARS_MAX).0))
        }
        ClientInitializeError::ConnectionClosed(_) => {
            Error::Failed("it closed the connection".to_owned())
        }
        _ => Error::Failed("it does not speak MCP as we know it".to_owned()),
    }
}

fn asked(error: &ServiceError) -> Error {
    if error.is_authorization_required() {
        return unauthorized();
    }
    match error {
        ServiceError::TransportSend(error) => sent(error.error.as_ref()),
        ServiceError::McpError(error) => {
            Error::Failed(format!("it refused: {}", first_chars(&error.message, SAID_CHARS_MAX).0))
        }
        ServiceError::TransportClosed => Error::Failed("the connection is closed".to_owned()),
        _ => Error::Failed("it answered something else than was asked".to_owned()),
    }
}

fn unauthorized() -> Error {
    Error::Unauthorized("it does not take these credentials".to_owned())
}

/// Why something could not be sent. reqwest's own text holds the URL, and that may hold a token.
fn sent(error: &(dyn std::error::Error + 'static)) -> Error {
    match error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        Some(StreamableHttpError::AuthRequired(_) | StreamableHttpError::InsufficientScope(_)) => {
            unauthorized()
        }
        Some(StreamableHttpError::UnexpectedServerResponse(said)) => {
            match said.strip_prefix("HTTP ").map(|it| first_chars(it, 3).0) {
                Some("401" | "403") => unauthorized(),
                Some(status) if status.parse::<u16>().is_ok() => {
                    Error::Failed(format!("it answered {status}"))
                }
                _ => Error::Failed("it answered what is not MCP".to_owned()),
            }
        }
        Some(StreamableHttpError::HttpStatus(status)) => {
            Error::Failed(format!("it answered {}", status.status))
        }
        Some(StreamableHttpError::ResponseBodyTooLarge { max_size }) => {
            Error::Failed(format!("its answer is longer than {max_size} bytes"))
        }
        Some(StreamableHttpError::Client(error)) => Error::Failed(last_cause(error)),
        Some(other) => Error::Failed(format!("the connection failed: {}", kind_of(other))),
        None => Error::Failed("the connection failed".to_owned()),
    }
}

fn kind_of(error: &StreamableHttpError<reqwest::Error>) -> &'static str {
    match error {
        StreamableHttpError::UnexpectedContentType(_) => "an answer of an unexpected type",
        StreamableHttpError::SessionExpired => "its session expired",
        StreamableHttpError::Sse(_) => "its stream broke",
        StreamableHttpError::TransportChannelClosed => "it is closed",
        _ => "it broke off",
    }
}

fn last_cause(error: &reqwest::Error) -> String {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut said = "it cannot be reached".to_owned();
    while let Some(deeper) = cause {
        said = deeper.to_string();
        cause = deeper.source();
    }
    format!("it cannot be reached: {}", first_chars(&said, SAID_CHARS_MAX).0)
}
