//! The client alone: bytes, bounds and giving up.

use std::time::Duration;

use bellpull::{
    clock::Clock,
    domain::{
        conversation::{Completion, Message, Request, Stop, UserPart},
        event::{Block, plain_text},
        model::ModelConfig,
        trace::TraceContext,
    },
    model::{Error, Kind, Models, OnText, OpenAiApi, Options, Retry},
};
use serde_json::json;

use crate::support::{
    model_server::{End, Format, ModelServer, Reply, Tokens},
    process::until,
};

on_all!(
    characters_survive_every_chunk,
    an_answer_that_breaks_off_is_none_wherever_it_does,
    errors_in_the_middle_have_their_class,
    what_is_no_stream_is_refused,
    silence_has_a_bound_and_signs_of_life_count,
    a_whole_request_has_a_bound_too,
    dropping_the_future_closes_the_connection,
    statuses_and_what_they_say_of_retrying,
    a_key_that_a_server_repeats_is_taken_out,
    redirects_are_not_followed,
);

const KEY: &str = "key-0123456789abcdef";

#[derive(Default)]
struct Pieces(Vec<String>);

impl OnText for Pieces {
    fn text(&mut self, index: usize, piece: &str) {
        self.0.resize(self.0.len().max(index + 1), String::new());
        self.0[index].push_str(piece);
    }
}

fn options(format: Format, url: &str) -> Options {
    Options {
        anthropic_api_key: Some(KEY.into()),
        anthropic_base_url: Some(url.to_owned()),
        openai_api_key: Some(KEY.into()),
        openai_base_url: Some(url.to_owned()),
        openai_api: match format {
            Format::Anthropic | Format::Chat => OpenAiApi::ChatCompletions,
            Format::Responses => OpenAiApi::Responses,
        },
        ..Options::default()
    }
}

fn models(format: Format, server: &ModelServer) -> Models {
    Models::new(options(format, &server.url), Clock::system())
}

/// Asks the question of all questions.
async fn ask(models: &Models, format: Format) -> (Result<Completion, Error>, Vec<String>) {
    let model = match format {
        Format::Anthropic => "claude-scripted",
        Format::Chat | Format::Responses => "openai/scripted",
    };
    let question = UserPart::Content(Block::text("well?"));
    let request = Request {
        system: None,
        messages: vec![Message::User { parts: vec![question] }],
        tools: vec![],
    };
    let mut pieces = Pieces::default();
    let trace = TraceContext::new(Clock::system().now());
    let result = models.complete(&ModelConfig::named(model), &request, trace, &mut pieces).await;
    (result, pieces.0)
}

const LETTERS: [&str; 4] = ["Grüße, 世界! ", "🦀", " ñandú\r\n\n", "\u{1F468}\u{200D}\u{1F469}"];

async fn characters_survive_every_chunk(format: Format) {
    let n_chunk = 1..=7;
    let replies = n_chunk.clone().map(|n| Reply::text(&LETTERS).in_chunks_of(n));
    let server = ModelServer::start(replies).await;
    let models = models(format, &server);
    for n in n_chunk {
        let (result, pieces) = ask(&models, format).await;
        let completion = result.unwrap();
        assert_eq!(plain_text(&completion.content), LETTERS.concat(), "in chunks of {n}");
        assert_eq!(pieces, [LETTERS.concat()]);
    }
}

async fn an_answer_that_breaks_off_is_none_wherever_it_does(format: Format) {
    let whole = Reply::text(&["all ", "of it"]).thinking();
    let n_bytes = whole.n_bytes(format);
    let step = if crate::support::full() { 1 } else { 13 };
    let places: Vec<usize> = (0..n_bytes).step_by(step).collect();
    let server = ModelServer::start(places.iter().map(|n| whole.clone().cut_after(*n))).await;
    let models = models(format, &server);
    let mut n_whole = 0;
    for place in places {
        match ask(&models, format).await.0 {
            Ok(completion) => {
                n_whole += 1;
                assert_eq!(plain_text(&completion.content), "all of it", "cut at {place}");
            }
            Err(error) => {
                assert_eq!((error.kind, error.retry), (Kind::RequestFailed, Retry::Later(None)));
                assert_eq!(n_whole, 0, "an end that was seen at {place} was seen before");
            }
        }
    }
}

async fn errors_in_the_middle_have_their_class(format: Format) {
    let reply = Reply::text(&["so far"]).breaking_off("overloaded_error");
    let server = ModelServer::start([reply]).await;
    let (result, pieces) = ask(&models(format, &server), format).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind, error.retry), (Kind::Overloaded, Retry::Later(None)), "{error}");
    assert_eq!(pieces, ["so far"], "a preview and nothing more");
}

async fn what_is_no_stream_is_refused(format: Format) {
    let page = "<html>a login page</html>".as_bytes();
    let full = br#"{"error": {"type": "invalid_request_error", "message": "no streams here"}}"#;
    let server = ModelServer::start([
        Reply::bytes("text/html; charset=utf-8", page),
        Reply::bytes("application/json", full),
        Reply::bytes("text/event-stream", page),
        Reply::bytes("text/event-stream", b"data: {\"half\": \n\n"),
        Reply::bytes("text/event-stream", b"data: [1, 2]\n\n"),
        Reply::bytes("text/event-stream", b"data: \"\xff\xfe\"\n\n"),
        Reply::bytes("text/event-stream", b""),
    ])
    .await;
    let models = models(format, &server);
    let mut results = Vec::new();
    for _ in 0..7 {
        let error = ask(&models, format).await.0.unwrap_err();
        assert_eq!(error.kind, Kind::RequestFailed);
        results.push((error.retry == Retry::Never, error.message));
    }
    let middle = "the model server ended its answer in the middle";
    let expected = [
        (
            true,
            "the model server answered with text/html in the place of a stream: is the base URL right?",
        ),
        (true, "the model server broke off its answer (invalid_request_error): no streams here"),
        (false, middle),
        (false, "the model server sent an event that is no JSON"),
        (false, "the model server sent an event that is no object"),
        (false, "the model server sent text that is no UTF-8"),
        (false, middle),
    ];
    assert_eq!(results, expected.map(|(never, message)| (never, message.to_owned())));
}

async fn silence_has_a_bound_and_signs_of_life_count(format: Format) {
    let whole = Reply::text(&["one ", "two ", "three"]);
    let n_bytes = whole.n_bytes(format);
    let server = ModelServer::start([
        whole.clone().stall_after(0),
        whole.clone().stall_after(n_bytes * 2 / 3),
        whole.slowly(Duration::from_millis(400)),
    ])
    .await;
    let options = Options { first_seconds: 2, idle_seconds: 2, ..options(format, &server.url) };
    let models = Models::new(options, Clock::system());
    for _ in 0..2 {
        let error = ask(&models, format).await.0.unwrap_err();
        assert_eq!(error.message, "the model server sent nothing for 2 seconds");
        assert_eq!((error.kind, error.retry), (Kind::RequestFailed, Retry::Later(None)));
    }
    let started = Clock::system().monotonic();
    let completion = ask(&models, format).await.0.unwrap();
    assert_eq!(plain_text(&completion.content), "one two three");
    assert!(
        Clock::system().monotonic() - started > Duration::from_secs(2),
        "longer than silence may"
    );
}

async fn a_whole_request_has_a_bound_too(format: Format) {
    let slow = Reply::text(&["x"; 50]).slowly(Duration::from_millis(100));
    let server = ModelServer::start([slow]).await;
    let options = Options { timeout_seconds: 1, ..options(format, &server.url) };
    let error = ask(&Models::new(options, Clock::system()), format).await.0.unwrap_err();
    assert_eq!(error.message, "the model's answer took longer than 1 seconds");
    assert_eq!(error.retry, Retry::Later(None));
    if format == Format::Anthropic {
        assert_eq!(error.spent.usage.input_tokens, 10, "what was counted by then is known");
    }
}

async fn dropping_the_future_closes_the_connection(format: Format) {
    let stalled = Reply::text(&["x"]).stall_after(20);
    let server = ModelServer::start([stalled]).await;
    let models = models(format, &server);
    let asking = tokio::spawn(async move { ask(&models, format).await.0 });
    until("the model is asked", async || (server.requests().len() == 1).then_some(())).await;
    let dropped = Clock::system().monotonic();
    asking.abort();
    let closed = until("the connection is closed", async || server.abandoned().pop()).await;
    assert!(closed - dropped < Duration::from_secs(1), "{:?}", closed - dropped);
}

async fn statuses_and_what_they_say_of_retrying(format: Format) {
    let later = |seconds| Retry::Later(Some(Duration::from_secs(seconds)));
    let check: [(Reply, Kind, Retry); 7] = [
        (Reply::status(529, "overloaded_error", "x"), Kind::Overloaded, Retry::Later(None)),
        (
            Reply::status(429, "rate_limit_error", "x").header("retry-after", "7"),
            Kind::RateLimited,
            later(7),
        ),
        (
            Reply::status(503, "x", "x")
                .header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")
                .header("date", "Sun, 06 Nov 1994 08:49:35 GMT"),
            Kind::Overloaded,
            later(2),
        ),
        (
            Reply::status(429, "rate_limit_error", "x").header("x-should-retry", "false"),
            Kind::RateLimited,
            Retry::Never,
        ),
        (
            Reply::status(400, "invalid_request_error", "x").header("x-should-retry", "true"),
            Kind::RequestFailed,
            Retry::Later(None),
        ),
        (Reply::status(402, "billing_error", "x"), Kind::Billing, Retry::Never),
        (Reply::status(404, "not_found_error", "x"), Kind::RequestFailed, Retry::Never),
    ];
    let server = ModelServer::start(check.iter().map(|(reply, ..)| reply.clone())).await;
    let models = models(format, &server);
    for (reply, kind, retry) in check {
        let error = ask(&models, format).await.0.unwrap_err();
        assert_eq!((error.kind, error.retry), (kind, retry), "{reply:?}");
    }
}

async fn a_key_that_a_server_repeats_is_taken_out(format: Format) {
    let message = format!("incorrect API key provided: {KEY}.");
    let server = ModelServer::start([Reply::status(401, "authentication_error", &message)]).await;
    server.forbid(KEY);
    let error = ask(&models(format, &server), format).await.0.unwrap_err();
    assert_eq!(
        error.message,
        "the model server answered 401 (authentication_error): incorrect API key provided: ***."
    );
    let request = server.requests().remove(0);
    let (name, value) = match format {
        Format::Anthropic => ("x-api-key", KEY.to_owned()),
        Format::Chat | Format::Responses => ("authorization", format!("Bearer {KEY}")),
    };
    assert_eq!(request.header(name), Some(value.as_str()));
}

async fn redirects_are_not_followed(format: Format) {
    let there = ModelServer::start([]).await;
    let redirect = Reply::status(307, "moved", "over there").header("location", &there.url);
    let server = ModelServer::start([redirect]).await;
    let error = ask(&models(format, &server), format).await.0.unwrap_err();
    assert!(error.message.contains("a redirect to http://127.0.0.1:"), "{error}");
    assert_eq!(error.retry, Retry::Never);
    assert!(there.requests().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_path() {
    let options = Options {
        openai_base_url: Some("http://127.0.0.1:9/some/path".to_owned()),
        ..Options::default()
    };
    let error = ask(&Models::new(options, Clock::system()), Format::Chat).await.0.unwrap_err();
    let expected = "the model server at http://127.0.0.1:9 could not be reached: ";
    assert!(error.message.starts_with(expected) && !error.message.contains("/some"), "{error}");
    assert_eq!(error.retry, Retry::Later(None));
}

#[tokio::test]
async fn answers_come_as_they_are_in_each_format() {
    for format in Format::ALL {
        let tokens = Tokens { input: 100, cached: 40, output: 7 };
        let server = ModelServer::start([
            Reply::text(&["Let me look."])
                .thinking()
                .tokens(tokens)
                .and_calls(&[("look", json!({"at": "größe"})), ("rest", json!({}))]),
            Reply::text(&["No."]).ending(End::Refused),
            Reply::text(&["half an ans"]).ending(End::Cut),
        ])
        .await;
        let models = models(format, &server);
        let completion = ask(&models, format).await.0.unwrap();
        assert_eq!(plain_text(&completion.content), "Let me look.");
        assert_eq!(
            completion.calls,
            [("look".to_owned(), json!({"at": "größe"})), ("rest".to_owned(), json!({}))]
        );
        assert!(completion.thought.is_some() && completion.stop == Stop::ToolUse);
        let usage = completion.spent.usage;
        assert_eq!(
            (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens),
            (100, 40, 7),
            "{format:?}"
        );
        assert_eq!(completion.spent.cost, None, "it has no price");
        assert_eq!(ask(&models, format).await.0.unwrap().stop, Stop::Refusal);
        assert_eq!(ask(&models, format).await.0.unwrap().stop, Stop::MaxTokens);
    }
}
