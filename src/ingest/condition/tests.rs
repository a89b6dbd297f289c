use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    clock::Timestamp,
    domain::source::SourceDefinition,
    id::{DeliveryId, Id},
    ingest::{Head, Payload, Sender},
};

fn ask(expression: &str, kind: Option<&str>, body: &[u8]) -> Result<bool, String> {
    let condition = Condition::read(expression)?;
    let mut headers = HeaderMap::new();
    headers.insert("x-kind", HeaderValue::from_static("night"));
    headers.insert("authorization", HeaderValue::from_static("Bearer secret"));
    headers.append("x-twice", HeaderValue::from_static("a"));
    headers.append("x-twice", HeaderValue::from_static("b"));
    let payload = Payload::of(kind.map(str::to_owned), body.to_vec().into());
    let sender = Sender::defined(&SourceDefinition::default()).unwrap();
    let (id, at) = (DeliveryId::new(Timestamp(0)), Timestamp(0));
    let head = Head { headers, ..Head::of_nobody() };
    condition.holds(&Facts::new(&id, ("code", &sender), Some("push"), &head, &payload, at))
}

const BODY: &str = r#"{"action":"opened","n":3,"big":18446744073709551615,"half":1.5,"whole":2.0,
    "labels":["bug","ui"],"none":null,"pull":{"draft":false,"base":{"ref":"main"}},"empty":[],
    "commits":[{"files":["a.rs"]},{"files":["b.md","c.md"]}],"a b":"x","nested":[["a"],[1,2.0]]}"#;

#[test]
fn expressions_come_to_true_or_false() {
    let check = |expected: bool, expressions: &[&str]| {
        for expression in expressions {
            assert_eq!(ask(expression, None, BODY.as_bytes()), Ok(expected), "{expression}");
        }
    };
    check(
        true,
        &[
            r#"event_type == "push" && body.action in ["opened", "synchronize"]"#,
            "source == 'code' && content_type == null && received_at == '1970-01-01T00:00:00.000Z'",
            "delivery_id.startsWith('dlv_')",
            "body.n == 3 && body.n == 3.0 && body.n < 3.5 && body.n + 1 > 3",
            "body.big > 9223372036854775807 && body.half == 1.5 && body.whole == 2",
            "!body.pull.draft && body.pull.base.ref == 'main' && body['a b'] == 'x'",
            "has(body.none) && body.none == null && !has(body.other) && !has(body.pull.head)",
            "'bug' in body.labels && !('x' in body.labels) && 'pull' in body",
            "['bug', 'ui'] == body.labels && body.labels == ['bug', 'ui']",
            "body.labels != ['bug'] && body.pull != body.commits[0]",
            "[body.labels] == [['bug', 'ui']] && body.labels in [['bug', 'ui']]",
            "['a'] in body.nested && [1, 2] in body.nested && body.pull == body.pull",
            "body.labels.exists(l, l == 'bug') && body.labels.all(l, size(l) < 4)",
            "body.labels.exists_one(l, l.startsWith('u')) && body.labels.size() == 2",
            "body.labels.filter(l, l == 'ui') == ['ui']",
            "body.labels.map(l, l + '!') == ['bug!', 'ui!']",
            "body.commits.exists(c, c.files.exists(f, f.endsWith('.md')))",
            "body.commits.map(c, size(c.files)) == [1, 2] && body.pull.exists(k, k == 'draft')",
            "body.commits[1].files[0] == 'b.md' && size(body.empty) == 0",
            "headers['x-kind'] == 'night' && headers['x-twice'] == 'a, b'",
            "!('authorization' in headers) && !has(headers.authorization)",
            "headers[?'x-other'].orValue('day') == 'day' && body.?pull.?head.hasValue() == false",
            "body.action.lowerAscii() == 'opened' && 'ÄB'.lowerAscii() == 'Äb'",
            "body.?pull.base.ref.orValue('') == 'main'",
            "int('3') == body.n && string(body.n) == '3' && type(body.labels) == list",
            "body.other == 1 || body.n == 3",
            "body.n == 3 ? true : body.other",
        ],
    );
    check(false, &["body.action == 'closed'", "body.n == 3 && body.action == 'x'", "false"]);
}

#[test]
fn nothing_is_made_of_what_an_expression_does_not_name() {
    let check = |expression: &str, names: &[&str]| {
        assert_eq!(Condition::read(expression).unwrap().names, names, "{expression}");
    };
    check("true", &[]);
    check("event_type == 'push'", &["event_type"]);
    check("body.labels.exists(headers, headers == body.kind)", &["body"]);
    check(
        "[1].all(source, .source == 'code') && type(received_at) == string",
        &["source", "received_at"],
    );
    check(
        "has(headers.a) && body.map(b, delivery_id) == [content_type]",
        &["headers", "body", "delivery_id", "content_type"],
    );
}

#[test]
fn what_cannot_be_asked_has_a_reason_and_no_value() {
    let check = |expression: &str, body: &str, expected: &str| {
        let reason = ask(expression, None, body.as_bytes()).expect_err(expression);
        assert_eq!(reason, expected, "{expression}");
    };
    let missing = "there is no field `other`; ask whether it is there with has(…) first";
    check("body.other == 1", BODY, missing);
    check("body['other'] == 1", BODY, missing);
    check("body.labels[7] == 'x'", BODY, "a list has fewer elements than asked for");
    check("body.action", BODY, "comes to a value of type string, not to true or false");
    check("body.n", BODY, "comes to a value of type int, not to true or false");
    check("body.n + body.action == 1", BODY, "the operation `add` cannot be used on these types");
    check("body.action < 3", BODY, "`<` cannot be used on: string, int");
    check("body.n.contains('x')", BODY, "`contains` cannot be used on: int, string");
    check("body.n in body.action", BODY, "`in` cannot be used on: int, string");
    check("body.x == 1", "[1]", "`.` cannot be used on: list, string");
    check("body.x == 1", "plain text", "`.` cannot be used on: string, string");
    check("body.x == 1", "", "`.` cannot be used on: null_type, string");
    check("has(body.x)", "", "`.` cannot be used on: null_type, string");
    check("1 / body.n == 1", r#"{"n":0}"#, "it divides by zero");
    check("body.n + 1 > 0", r#"{"n":9223372036854775807}"#, "a number becomes too large");
    check("int(body.s) == 1", r#"{"s":"one"}"#, "`int` cannot make anything of its value");
    check("body.n.all(x, x == 1)", r#"{"n":1}"#, "a iterable is wanted, not a int");
}

#[test]
fn bodies_that_are_not_json() {
    let check = |expression: &str, kind: Option<&str>, body: &[u8]| {
        assert_eq!(ask(expression, kind, body), Ok(true), "{expression}");
    };
    let form = Some("application/x-www-form-urlencoded");
    check("body.a == 'ü' && body.b == ['1', '2']", form, b"a=%C3%BC&b=1&b=2");
    check("body.action == 'x'", form, b"payload=%7B%22action%22%3A%22x%22%7D");
    check(
        "body.contains('line two') && content_type == 'text/plain'",
        Some("text/plain"),
        b"line one\nline two",
    );
    check("body == null", None, b"");
    check("body == null", None, &[0, 1, 2, 3, 4, 255, 254]);
    check("body == null", None, br#"{"lone":"\ud800"}"#);
    check("body == null", None, br#"{"n":1e400}"#);
    check("body == null", None, ("[".repeat(100_000) + &"]".repeat(100_000)).as_bytes());
    check("body == null", None, format!("[{}1]", "1,".repeat(1_000_001)).as_bytes());
    check("body.n == 'a\u{0}b'", None, br#"{"n":"a\u0000b"}"#);
    check("event_type == 'push'", None, b"{broken");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let check = |expression: &str, expected: &str| {
        assert_eq!(Condition::read(expression).expect_err(expression), expected, "{expression}");
    };
    check("", "is empty");
    check(&"a".repeat(5000), "is longer than 4096 bytes");
    let sum = format!("{} > 0", vec!["1"; 200].join("+"));
    let deep = Condition::read(&sum).expect_err("it is deep");
    assert!(deep.ends_with("holds more than 100 operations within each other"), "{deep}");
    check("boddy.x == 1", "line 1, column 1: `boddy` is not known: did you mean `body`?");
    check(
        "true &&\n  zzz == 1",
        "line 2, column 3: `zzz` is not known: there are body, headers, event_type, source, \
         content_type, delivery_id, received_at",
    );
    check(
        "body.x.containss('a')",
        "line 1, column 17: there is no function `containss`: did you mean `contains`?",
    );
    check("{'a': 1} == body", "line 1, column 1: a map cannot be written here; compare its fields");
    check(
        "body.labels.all(l, m == 1)",
        "line 1, column 20: `m` is not known: there are body, \
        headers, event_type, source, content_type, delivery_id, received_at",
    );
    for expression in ["body.x ==", "body.x = 1", "1 +", "body..x", "'open", "has(body)", "\u{0}"] {
        let wrong = Condition::read(expression).expect_err(expression);
        assert!(wrong.starts_with("line 1, column "), "{expression}: {wrong}");
    }
}

#[test]
fn no_delivery_costs_more_than_the_steps() {
    let list = |n: usize| vec!["1"; n].join(",");
    let body = format!(
        r#"{{"a":[{0}],"b":[{0}],"deep":[[{1}]],"text":"{2}"}}"#,
        list(20_000),
        list(200_000),
        "x".repeat(2_000_000)
    );
    let used_up = Err("takes more than 100000 steps for this delivery".to_owned());
    for expression in [
        "body.a.exists(x, body.b.exists(y, x == y + 1))",
        "body.a.all(x, body.b.all(y, true))",
        "body.a.map(x, body.b.map(y, y)).size() == 1",
        "body.a.filter(x, body.text.contains('y')).size() == 1",
        "body.a.exists(x, 2 in body.b)",
        "body.a.exists(x, (body.text + body.text) == 'x') || true",
        "body.a.all(x, body.deep.all(d, size(d) > 0))",
        "[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, \
            [1,2,3,4,5,6,7,8,9].all(d, [1,2,3,4,5,6,7,8,9].all(e, [1,2,3,4,5,6,7,8,9].all(f, \
            true))))))",
    ] {
        assert_eq!(ask(expression, None, body.as_bytes()), used_up, "{expression}");
    }
    assert_eq!(ask("body.a.exists(x, x == 2)", None, body.as_bytes()), Ok(false));
    assert_eq!(ask("body.text.contains('y')", None, body.as_bytes()), Ok(false));
}

#[test]
fn deep_expressions_and_payloads_fit_a_small_stack() {
    let deep = format!("{}true{}", "(".repeat(40), ")".repeat(40));
    let nots = "!".repeat(4000) + "true";
    let minus = "-".repeat(4000) + "1 < 0";
    let ands = vec!["true"; 500].join(" && ");
    let sums = |n: usize| format!("{} > 0", vec!["1"; n].join("+"));
    let fields = |n: usize| format!("has(body{}.a)", ".a".repeat(n));
    let ifs = "true ? true : ".repeat(80) + "true";
    let calls = format!("body{}", ".size()".repeat(500));
    let lists = format!("{}1{} == body", "[".repeat(90), "]".repeat(90));
    let brackets = "[".repeat(4096);
    let body = format!("{}1{}", r#"{"a":"#.repeat(126), "}".repeat(126));
    let same = "body == body && [body] == [body]";
    let fine = [&deep, &sums(90), &fields(90), same, &lists];
    let all = [&nots, &minus, &ands, &sums(2000), &fields(2000), &ifs, &calls, &brackets];
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(1024 * 1024);
        let run = || {
            for expression in all {
                let _ = ask(expression, None, body.as_bytes());
            }
            fine.map(|it| ask(it, None, body.as_bytes()))
        };
        let answers = thread.spawn_scoped(scope, run).unwrap().join().unwrap();
        assert_eq!(answers, [Ok(true), Ok(true), Ok(true), Ok(true), Ok(false)]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn hostile_json_never_panics(body in hostile(), n in 0..EXPRESSIONS.len()) {
        let _ = ask(EXPRESSIONS[n], None, body.as_bytes());
    }

    #[test]
    fn hostile_expressions_never_panic(text in "[a-z0-9_.()\\[\\]{}'\"?:!&|<>=+*/% \\\\,\\-]{0,60}") {
        let _ = ask(&text, None, BODY.as_bytes());
    }

    #[test]
    fn bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200), n in 0..EXPRESSIONS.len()) {
        let _ = ask(EXPRESSIONS[n], None, &body);
    }
}

const EXPRESSIONS: [&str; 12] = [
    "body.a == 1",
    "has(body.a) && body.a.b in ['x', 1, 1.5]",
    "body.a + body.b == body.c",
    "body.a - 1 > -body.b || body.a * body.b / body.c % 7 == 0",
    "body.exists(x, x == 'a') || body.all(x, size(x) > 0)",
    "body.map(x, x + x) == body.filter(x, x != null)",
    "body[0] == body['a'] || body[body.a] == 1",
    "int(body.a) == uint(body.b) && double(body.a) > 0.0 && string(body.c) != ''",
    "[body, body.a] == [body.a, body] && body in [body]",
    "size(body.a) == body.a.size() && body.?a.?b.orValue(1) == 1",
    "body.a < body.b || body.a >= body.c || (body.a ? true : false)",
    "body.a.contains(body.b) || body.a.lowerAscii().startsWith(string(body.b))",
];

/// JSON as nobody sends it: numbers at and beyond every edge, lone surrogates, NUL, nesting.
fn hostile() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just(json!("a\0b").to_string()),
        Just(r#""\ud800""#.to_owned()),
        Just(r#""\u0000""#.to_owned()),
        Just("1e308".to_owned()),
        Just("-1e308".to_owned()),
        Just("1e400".to_owned()),
        Just("-0.0".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("-9223372036854775808".to_owned()),
        Just("18446744073709551615".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        "-?[0-9]{1,3}",
        "\"[abü🔔]{0,3}\"",
    ];
    let nested = scalar.prop_recursive(6, 40, 5, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..5);
        let map = prop::collection::vec(("[abc]{0,1}", inner), 0..5);
        prop_oneof![
            list.prop_map(|it| format!("[{}]", it.join(","))),
            map.prop_map(|pairs| {
                let pairs: Vec<_> =
                    pairs.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", pairs.join(","))
            }),
        ]
    });
    (nested, 0..200_usize).prop_map(|(json, depth)| match depth % 3 {
        0 => format!("{}{json}{}", r#"{"a":"#.repeat(depth), "}".repeat(depth)),
        _ => json,
    })
}
