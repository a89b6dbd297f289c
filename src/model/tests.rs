//! Which server is asked, where, and with what in its headers. What comes back is tested against a
//! scripted server in `tests/it/model`.

use super::*;

fn options() -> Options {
    Options {
        anthropic_api_key: Some("key-a".into()),
        openai_api_key: Some("key-o".into()),
        ..Options::default()
    }
}

fn model() -> ModelConfig {
    ModelConfig::named("x")
}

#[test]
fn urls_follow_the_custom_of_their_provider() {
    let anthropic = |base: Option<&str>| {
        let options = Options { anthropic_base_url: base.map(str::to_owned), ..options() };
        anthropic_call(&options, &model(), Value::Null).unwrap().url
    };
    assert_eq!(anthropic(None), "https://api.anthropic.com/v1/messages");
    assert_eq!(anthropic(Some("http://h:1")), "http://h:1/v1/messages");
    assert_eq!(anthropic(Some("http://h:1/v1")), "http://h:1/v1/messages");
    assert_eq!(anthropic(Some("http://h/gateway")), "http://h/gateway/v1/messages");

    let openai = |base: Option<&str>, path: &str| {
        let options = Options { openai_base_url: base.map(str::to_owned), ..options() };
        openai_call(&options, &model(), path, Value::Null).unwrap().url
    };
    assert_eq!(openai(None, "responses"), "https://api.openai.com/v1/responses");
    assert_eq!(openai(Some("http://h:1/v1"), "chat/completions"), "http://h:1/v1/chat/completions");
    assert_eq!(openai(Some("http://h:1"), "chat/completions"), "http://h:1/v1/chat/completions");
    assert_eq!(openai(Some("http://h/api/v4"), "responses"), "http://h/api/v4/responses");
}

#[test]
fn a_base_url_that_is_none_is_said_without_its_path() {
    let options = Options { openai_base_url: Some("gate way/secret".to_owned()), ..options() };
    let call = openai_call(&options, &model(), "responses", Value::Null).unwrap();
    let error = call.request().unwrap_err();
    assert_eq!(error.retry, Retry::Never);
    assert!(error.message.contains("`gate way`"), "{}", error.message);
    assert!(!error.message.contains("secret"), "{}", error.message);
}

#[test]
fn a_key_may_be_absent_where_a_base_url_is_set_and_is_never_shown() {
    let none = Options::default();
    let error = openai_call(&none, &model(), "responses", Value::Null).unwrap_err();
    assert_eq!(
        error.message,
        "no provider is set up for the model `x`: it needs `OPENAI_API_KEY` or `OPENAI_BASE_URL`; \
         the built-in `rehearsal` needs none"
    );
    assert_eq!(error.retry, Retry::Never);
    let local = Options { openai_base_url: Some("http://h".to_owned()), ..none };
    let call = openai_call(&local, &model(), "responses", Value::Null).unwrap();
    assert!(call.headers.is_empty());

    let call = anthropic_call(&options(), &model(), Value::Null).unwrap();
    assert_eq!(call.headers["x-api-key"], "key-a");
    assert_eq!(call.headers["anthropic-version"], "2023-06-01");
    let shown = format!("{call:?} {:?}", Models::new(options(), Clock::system()));
    assert!(!shown.contains("key-a") && !shown.contains("key-o"), "{shown}");
}

#[test]
fn openai_itself_is_asked_in_its_newer_format() {
    let check = |base: Option<&str>, api: OpenAiApi, expected: bool| {
        let base = base.map(str::to_owned);
        let options = Options { openai_base_url: base, openai_api: api, ..options() };
        assert_eq!(options.speaks_responses(), expected);
    };
    check(None, OpenAiApi::Auto, true);
    check(Some("http://h"), OpenAiApi::Auto, false);
    check(Some("http://h"), OpenAiApi::Responses, true);
    check(None, OpenAiApi::ChatCompletions, false);
}

#[test]
fn the_default_model_is_the_first_that_has_a_key() {
    let default = |anthropic: bool, openai: bool, base: bool| {
        Options {
            anthropic_api_key: anthropic.then(|| "a".into()),
            openai_api_key: openai.then(|| "o".into()),
            openai_base_url: base.then(|| "http://h".to_owned()),
            ..Options::default()
        }
        .default_model()
    };
    assert_eq!(default(true, true, false), ANTHROPIC_DEFAULT);
    assert_eq!(default(false, true, false), OPENAI_DEFAULT);
    // What a server of one's own calls its models, nobody knows.
    assert_eq!(default(false, true, true), "rehearsal");
    assert_eq!(default(false, false, false), "rehearsal");
}

#[test]
fn a_proxy_that_is_none_stops_nothing_but_requests() {
    let options = Options { https_proxy: Some("::s3cret::".into()), ..options() };
    let models = Models::new(options, Clock::system());
    let error = models.reach.load().carrier.as_ref().err().cloned().unwrap();
    assert!(error.contains("HTTPS_PROXY") && !error.contains("s3cret"), "{error}");
}

/// A server may send anything.
mod anything {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::wire::Fold;

    struct Nobody;

    impl OnText for Nobody {
        fn text(&mut self, _index: usize, _piece: &str) {}
    }

    const WORDS: [&str; 43] = [
        "type",
        "index",
        "message",
        "usage",
        "content",
        "content_block",
        "delta",
        "text",
        "input",
        "partial_json",
        "thinking",
        "signature",
        "stop_reason",
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "text_delta",
        "tool_use",
        "input_json_delta",
        "citations_delta",
        "citation",
        "citations",
        "choices",
        "tool_calls",
        "function",
        "arguments",
        "name",
        "id",
        "finish_reason",
        "refusal",
        "error",
        "code",
        "response",
        "output",
        "item",
        "output_index",
        "response.completed",
        "response.failed",
        "response.output_item.done",
        "function_call",
        "status",
    ];

    fn anything() -> impl Strategy<Value = Value> {
        let word = || prop::sample::select(&WORDS[..]);
        let leaf = prop_oneof![
            word().prop_map(Value::from),
            Just(Value::Null),
            (-2_i64..5).prop_map(Value::from),
            Just(json!({})),
            Just(json!("{\"a\": 1}")),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((word(), inner), 0..5).prop_map(|fields| {
                    Value::Object(
                        fields.into_iter().map(|(key, it)| (key.to_owned(), it)).collect(),
                    )
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(events in prop::collection::vec(anything(), 1..6)) {
            let folds: [Box<dyn Fold>; 3] = [
                Box::<anthropic::Answer>::default(),
                Box::<chat::Answer>::default(),
                Box::<responses::Answer>::default(),
            ];
            for mut fold in folds {
                for event in &events {
                    let _ = fold.take(&event.to_string(), &mut Nobody);
                }
                let _ = fold.finish();
                let _ = Error::of_status(500, &events[0].to_string());
            }
        }
    }
}
