//! Models: whoever answers a conversation.
//!
//! One closed enum of providers, so that the runtime treats every model alike. Invariants: a model
//! gets a [`Request`] and nothing else, whatever it is; its partial text is only ever a preview; an
//! error says whether asking again may help, and when. One call is one request: the next try is the
//! runtime's, because each try is journaled. Left out: the journal, budgets, tools.

mod anthropic;
mod chat;
mod error;
mod http;
mod price;
mod rehearsal;
mod responses;
mod retry;
mod sse;
mod surrogate;
mod wire;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use ::http::{HeaderMap, HeaderValue};
use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::{
    clock::Clock,
    domain::{
        conversation::{Completion, Request},
        cost::{MicroUsd, Spent},
        event::Usage,
        model::{ModelConfig, ModelRef, Provider, REHEARSAL},
        trace::TraceContext,
    },
};

pub use error::{Error, Kind, Retry};
pub use http::Carrier;
pub use price::Price;
pub use rehearsal::script::MARK as SCRIPT_MARK;
pub use retry::GivenUp;

/// How to reach the providers, and with how much patience.
#[derive(Clone, Debug)]
pub struct Options {
    pub anthropic_api_key: Option<SecretString>,
    pub anthropic_base_url: Option<String>,
    pub openai_api_key: Option<SecretString>,
    pub openai_base_url: Option<String>,
    /// The format in which the provider `openai` is spoken to.
    pub openai_api: OpenAiApi,
    /// The proxy of requests by https.
    pub https_proxy: Option<SecretString>,
    /// Hosts that are reached without it.
    pub no_proxy: Option<String>,
    /// Seconds for a whole request.
    pub timeout_seconds: u64,
    /// Seconds of silence until the first piece of an answer.
    pub first_seconds: u64,
    /// Seconds of silence within an answer.
    pub idle_seconds: u64,
    /// Times that a failed request is made again.
    pub retries_max: u32,
    /// Milliseconds before the first of these times at most; doubled with each further one.
    pub retry_first_ms: u64,
    /// Seconds between two tries at most, also when the provider asks for more.
    pub retry_seconds_max: u64,
    /// Seconds that the failed requests of one turn and the pauses after them may take together;
    /// beyond, the turn ends as `retries_exhausted`.
    pub retry_total_seconds_max: u64,
    /// Tokens of one answer at most. Without it: what the provider allows, or 32,000 where the
    /// format wants a number.
    pub max_tokens: Option<u32>,
    /// By model, as the agent or the provider names it.
    pub prices: BTreeMap<String, Price>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            anthropic_api_key: None,
            anthropic_base_url: None,
            openai_api_key: None,
            openai_base_url: None,
            openai_api: OpenAiApi::Auto,
            https_proxy: None,
            no_proxy: None,
            timeout_seconds: 1800,
            first_seconds: 300,
            idle_seconds: 60,
            retries_max: 5,
            retry_first_ms: 500,
            retry_seconds_max: 60,
            retry_total_seconds_max: 3600,
            max_tokens: None,
            prices: BTreeMap::new(),
        }
    }
}

/// OpenAI has two formats: its own servers take tools in the newer one only, all others speak the
/// older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenAiApi {
    /// By the base URL: `Responses` without one, else `ChatCompletions`.
    Auto,
    ChatCompletions,
    Responses,
}

/// Tokens of one answer, where nobody set a limit.
const ANSWER_TOKENS: u32 = 32_000;

/// Models that an agent is given when nobody chose one.
const ANTHROPIC_DEFAULT: &str = "claude-sonnet-5-5";
const OPENAI_DEFAULT: &str = "gpt-6.1-sol";

const ANTHROPIC_URL: &str = "https://api.anthropic.com";
const OPENAI_URL: &str = "https://api.openai.com/v1";

impl Options {
    /// The first model that has a key, else the one that needs none.
    pub fn default_model(&self) -> &'static str {
        if self.anthropic_api_key.is_some() {
            ANTHROPIC_DEFAULT
        } else if self.openai_api_key.is_some() && self.openai_base_url.is_none() {
            OPENAI_DEFAULT
        } else {
            REHEARSAL
        }
    }

    /// The variable that holds the key of this model's server, if that is neither given nor left out
    /// for a server that needs none.
    pub fn missing_key(&self, model: &str) -> Option<&'static str> {
        match ModelRef::parse(model, self.openai_is_set_up()).provider {
            Provider::Rehearsal => None,
            Provider::Anthropic => (self.anthropic_api_key.is_none()
                && self.anthropic_base_url.is_none())
            .then_some("ANTHROPIC_API_KEY"),
            Provider::OpenAi => (!self.openai_is_set_up()).then_some("OPENAI_API_KEY"),
        }
    }

    fn openai_is_set_up(&self) -> bool {
        self.openai_api_key.is_some() || self.openai_base_url.is_some()
    }
}

/// Takes pieces of text as they come: the index of the content block and the piece.
pub trait OnText: Send {
    fn text(&mut self, index: usize, piece: &str);

    /// The model thinks before it speaks; told once or more.
    fn thinking(&mut self) {}
}

/// The models that this server can reach. Clones share everything.
#[derive(Clone)]
pub struct Models {
    reach: Arc<ArcSwap<Reach>>,
    clock: Clock,
    /// Instead of a client of our own.
    carrier: Option<Arc<dyn Carrier>>,
}

/// One state of the options, and the client that goes with it.
struct Reach {
    options: Options,
    carrier: Result<Arc<dyn Carrier>, String>,
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models")
            .field("options", &self.reach.load().options)
            .finish_non_exhaustive()
    }
}

impl Models {
    pub fn new(options: Options, clock: Clock) -> Models {
        Models::reached(options, clock, None)
    }

    /// Models that are reached in the caller's way.
    pub fn carried(carrier: Arc<dyn Carrier>, options: Options, clock: Clock) -> Models {
        Models::reached(options, clock, Some(carrier))
    }

    fn reached(options: Options, clock: Clock, carrier: Option<Arc<dyn Carrier>>) -> Models {
        let reach = Reach::new(options, carrier.as_ref());
        Models { reach: Arc::new(ArcSwap::from_pointee(reach)), clock, carrier }
    }

    /// Takes over other options; requests that are under way keep theirs.
    pub fn set_options(&self, options: Options) {
        self.reach.store(Arc::new(Reach::new(options, self.carrier.as_ref())));
    }

    /// As [`Options::missing_key`], by the options as they are now.
    pub fn missing_key(&self, model: &str) -> Option<&'static str> {
        self.reach.load().options.missing_key(model)
    }

    /// Asks a model, once, as a step of a trace. Dropping the future cancels the request.
    pub async fn complete(
        &self,
        model: &ModelConfig,
        request: &Request,
        trace: TraceContext,
        on_text: &mut dyn OnText,
    ) -> Result<Completion, Error> {
        let reach = self.reach.load_full();
        let options = &reach.options;
        let reference = ModelRef::parse(&model.id, options.openai_is_set_up());
        let (mut call, mut answer): (http::Call, Box<dyn wire::Fold>) = match reference.provider {
            Provider::Rehearsal => {
                return Ok(rehearsal::complete(request, on_text, &self.clock).await);
            }
            Provider::Anthropic => {
                let body = anthropic::body(&reference.id, model, request, options.max_tokens);
                (anthropic_call(options, model, body)?, Box::<anthropic::Answer>::default())
            }
            Provider::OpenAi if options.speaks_responses() => {
                let body = responses::body(&reference.id, model, request, options.max_tokens);
                (
                    openai_call(options, model, "responses", body)?,
                    Box::<responses::Answer>::default(),
                )
            }
            Provider::OpenAi => {
                let key = options.max_tokens_key();
                let max_tokens = options.max_tokens.map(|n| (key, n));
                let body = chat::body(&reference.id, model, request, max_tokens);
                let call = openai_call(options, model, "chat/completions", body)?;
                (call, Box::<chat::Answer>::default())
            }
        };
        let traceparent = HeaderValue::from_str(&trace.child(self.clock.now()).to_string());
        call.headers.insert("traceparent", traceparent.expect("a trace is ASCII"));
        let carrier = reach.carrier.as_deref().map_err(|error| Error::never(error.clone()))?;
        let price = price::find(&options.prices, &model.id, &reference);
        // What was not counted is not known to be free.
        let priced = |spent: Spent| {
            let price = price.filter(|_| spent.usage != Usage::default());
            Spent { cost: price.map(|price| price.of(&spent.usage)), ..spent }
        };
        match http::ask(carrier, call, answer.as_mut(), on_text, options, &self.clock).await {
            Ok(completion) => Ok(Completion { spent: priced(completion.spent), ..completion }),
            Err(error) => Err(Error { spent: priced(error.spent), ..error }),
        }
    }

    /// What a request uses at most: its tokens, as many as it has bytes, and what they cost if the
    /// model has a price.
    pub fn bound(&self, model: &ModelConfig, request: &Request) -> (i64, Option<MicroUsd>) {
        let reach = self.reach.load();
        let options = &reach.options;
        let reference = ModelRef::parse(&model.id, options.openai_is_set_up());
        if reference.provider == Provider::Rehearsal {
            return (0, Some(MicroUsd(0)));
        }
        let input = i64::try_from(request.n_bytes()).unwrap_or(i64::MAX);
        let output = i64::from(options.max_tokens.unwrap_or(ANSWER_TOKENS));
        let cost = price::find(&options.prices, &model.id, &reference).map(|price| {
            let usage = Usage { input_tokens: input, output_tokens: output, ..Usage::default() };
            let cached = Usage { input_tokens: 0, cache_creation_input_tokens: input, ..usage };
            price.of(&usage).max(price.of(&cached))
        });
        (input.saturating_add(output), cost)
    }

    /// The pause before a failed request is made again, or why it is not. `lost` is what such
    /// requests and their pauses took from the turn so far, this one included.
    pub fn pause(
        &self,
        error: &Error,
        n_failures: u32,
        lost: Duration,
        jitter: f64,
    ) -> Result<Duration, GivenUp> {
        retry::pause(&self.reach.load().options, error, n_failures, lost, jitter)
    }
}

impl Reach {
    fn new(options: Options, carrier: Option<&Arc<dyn Carrier>>) -> Reach {
        if let Some(carrier) = carrier {
            return Reach { options, carrier: Ok(carrier.clone()) };
        }
        let client = http::client(&options).map_err(|error| {
            // The proxy's URL may hold a password.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.filter(|_| options.https_proxy.is_none()).unwrap_or_default();
            format!("the client of model servers cannot be made (is `HTTPS_PROXY` a URL?) {cause}")
        });
        if let Err(error) = &client {
            tracing::warn!(error, "no model server can be reached");
        }
        let carrier = client.map(|client| Arc::new(client) as Arc<dyn Carrier>);
        Reach { options, carrier }
    }
}

impl Options {
    fn speaks_responses(&self) -> bool {
        match self.openai_api {
            OpenAiApi::Auto => self.openai_base_url.is_none(),
            OpenAiApi::ChatCompletions => false,
            OpenAiApi::Responses => true,
        }
    }

    fn max_tokens_key(&self) -> chat::MaxTokensKey {
        match self.openai_base_url {
            None => chat::MaxTokensKey::OpenAi,
            Some(_) => chat::MaxTokensKey::Common,
        }
    }
}

fn anthropic_call(
    options: &Options,
    model: &ModelConfig,
    body: Value,
) -> Result<http::Call, Error> {
    let (key, base) = (&options.anthropic_api_key, &options.anthropic_base_url);
    if key.is_none() && base.is_none() {
        return Err(not_set_up(model, "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"));
    }
    let base = base.as_deref().unwrap_or(ANTHROPIC_URL);
    let mut headers = HeaderMap::new();
    headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    if body.get("speed").is_some() {
        headers.insert("anthropic-beta", HeaderValue::from_static("fast-mode-2026-02-01"));
    }
    if let Some(key) = key {
        headers.insert("x-api-key", http::secret_header(key.expose_secret())?);
    }
    // By custom this base has no version in it; with one it is meant all the same.
    let url = format!("{}/v1/messages", base.strip_suffix("/v1").unwrap_or(base));
    Ok(http::Call { url, headers, body, key: key.clone() })
}

fn openai_call(
    options: &Options,
    model: &ModelConfig,
    path: &str,
    body: Value,
) -> Result<http::Call, Error> {
    let (key, base) = (&options.openai_api_key, &options.openai_base_url);
    if key.is_none() && base.is_none() {
        return Err(not_set_up(model, "OPENAI_API_KEY", "OPENAI_BASE_URL"));
    }
    let base = base.as_deref().unwrap_or(OPENAI_URL);
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let value = http::secret_header(&format!("Bearer {}", key.expose_secret()))?;
        headers.insert(::http::header::AUTHORIZATION, value);
    }
    // By custom this base ends with a version; a mere host means the usual one.
    let is_host = base.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'));
    let version = if is_host { "/v1" } else { "" };
    Ok(http::Call { url: format!("{base}{version}/{path}"), headers, body, key: key.clone() })
}

fn not_set_up(model: &ModelConfig, key: &str, base: &str) -> Error {
    Error::never(format!(
        "no provider is set up for the model `{}`: it needs `{key}` or `{base}`; the built-in \
         `{REHEARSAL}` needs none",
        model.id
    ))
}

#[cfg(test)]
mod tests;
