//! Everything here goes through [`Config::load`]; the files that a configuration names are those of
//! [`FILES`].

mod document;
mod resource;

use expect_test::{Expect, expect};

use super::*;

const FILES: [(&str, &str); 4] = [
    ("/etc/bellpull/secrets/builds", "a-secret-from-a-file\n"),
    ("/run/secrets/box", "the-box-key-of-this-box\r\n"),
    ("/run/secrets/empty", "\n"),
    ("/etc/bellpull/lucy.md", "You are Lucy.\n"),
];

struct Given<'a> {
    name: &'a str,
    bytes: &'a [u8],
    environment: &'a [(&'a str, &'a str)],
    flags: Flags,
}

impl Given<'_> {
    fn load(&self) -> Result<Loaded, Problems> {
        let path = Path::new("/etc/bellpull").join(self.name);
        let file = FileText { path, bytes: self.bytes.to_owned() };
        let environment =
            self.environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::load(Some(&file), &environment.collect(), &self.flags, &|path| {
            let found = FILES.iter().find(|(name, _)| Path::new(name) == path);
            found
                .map(|(_, text)| text.to_string())
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        })
    }
}

fn toml<'a>(text: &'a str, environment: &'a [(&'a str, &'a str)]) -> Given<'a> {
    let flags = Flags::default();
    Given { name: "bellpull.toml", bytes: text.as_bytes(), environment, flags }
}

fn json(text: &str) -> Given<'_> {
    Given { name: "bellpull.json", ..toml(text, &[]) }
}

fn load_toml(text: &str) -> Loaded {
    toml(text, &[]).load().unwrap()
}

/// The problems, or the warnings when there are none.
fn check(given: &Given<'_>, expected: Expect) {
    let text = match given.load() {
        Ok(loaded) => {
            let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
            format!("fine\n{}", warnings.join("\n"))
        }
        Err(problems) => problems.to_string(),
    };
    expected.assert_eq(text.trim_end());
}

fn expose(secret: &Option<SecretString>) -> Option<&str> {
    secret.as_ref().map(secrecy::ExposeSecret::expose_secret)
}

fn setting<'a>(loaded: &'a Loaded, key: &str) -> &'a Setting {
    loaded.settings.iter().find(|setting| setting.key == key).unwrap()
}

#[test]
fn nothing_at_all_is_the_defaults() {
    let loaded = Config::load(None, &BTreeMap::new(), &Flags::default(), &|_| {
        Err(io::Error::other("no files here"))
    })
    .unwrap();
    assert_eq!(loaded.config.listen.to_string(), "127.0.0.1:4100");
    assert_eq!(loaded.config.data_dir, Path::new("bellpull-data"));
    assert_eq!(loaded.config.limits, ingest::Options::default());
    assert_eq!(loaded.config.store, store::Options::default());
    assert_eq!(loaded.config.retention, store::Retention::default());
    assert_eq!(loaded.config.worker, worker::Options::default());
    assert_eq!(loaded.config.log, Log::default());
    assert!(loaded.settings.iter().all(|setting| setting.origin == Origin::Default));
    assert!(loaded.warnings.is_empty() && loaded.declared.sources.is_empty());
}

#[test]
fn data_goes_where_the_platform_keeps_it() {
    for (environment, expected) in [
        (&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")][..], "/x/bellpull"),
        (&[("XDG_DATA_HOME", "x"), ("HOME", "/h")][..], "/h/.local/share/bellpull"),
        (&[("XDG_DATA_HOME", "")][..], "bellpull-data"),
    ] {
        let loaded = toml("", environment).load().unwrap();
        assert_eq!(loaded.config.data_dir, Path::new(expected));
    }
}

#[test]
fn flag_wins_over_variable_over_file_over_default() {
    let text = "listen = '127.0.0.1:1'\npublic_url = 'https://file.example.com/'";
    let mut given = toml(text, &[("BELLPULL_LISTEN", "127.0.0.1:2")]);
    let listen = |given: &Given<'_>| {
        let loaded = given.load().unwrap();
        (loaded.config.listen.port(), setting(&loaded, "listen").origin)
    };
    assert_eq!(listen(&given), (2, Origin::Environment));
    given.flags.listen = Some("127.0.0.1:3".to_owned());
    assert_eq!(listen(&given), (3, Origin::Flag));
    given.environment = &[("BELLPULL_LISTEN", "")];
    given.flags.listen = None;
    assert_eq!(listen(&given), (1, Origin::File));
    let loaded = given.load().unwrap();
    assert_eq!(loaded.config.public_url.as_deref(), Some("https://file.example.com"));
    assert_eq!(setting(&loaded, "log.filter").origin, Origin::Default);
    assert_eq!(setting(&loaded, "log.filter").environment.as_deref(), Some("BELLPULL_LOG__FILTER"));
}

#[test]
fn the_public_url_may_have_a_plain_path() {
    let check = |given: &str, expected: Option<&str>| {
        let text = format!("public_url = '{given}'");
        let loaded = toml(&text, &[]).load().ok();
        let url = loaded.and_then(|it| it.config.public_url);
        assert_eq!(url.as_deref(), expected, "{given}");
    };
    check("https://example.com/bellpull/", Some("https://example.com/bellpull"));
    check("http://[::1]:4100/a/b-c_d.e", Some("http://[::1]:4100/a/b-c_d.e"));
    for wrong in ["/a//b", "/../a", "/a%2fb", "/a?b", "/a#b", "/a b", "/.", "/a<b"] {
        check(&format!("https://example.com{wrong}"), None);
    }
}

#[test]
fn every_key_of_every_section_has_a_variable() {
    let values = [
        ("BELLPULL_LIMITS__BODY_BYTES_MAX", "1_048_576"),
        ("BELLPULL_LIMITS__IN_FLIGHT_BYTES_MAX", "2097152"),
        ("BELLPULL_LIMITS__UNVERIFIED_BYTES_MAX", "2097153"),
        ("BELLPULL_LIMITS__UNVERIFIED_SECONDS_MAX", "10"),
        ("BELLPULL_LIMITS__BODY_SECONDS_MAX", "9"),
        ("BELLPULL_LIMITS__WAITING_SESSIONS_MAX", "8"),
        ("BELLPULL_LIMITS__WAITING_MESSAGES_MAX", "7"),
        ("BELLPULL_LIMITS__FREE_DISK_BYTES_MIN", "0"),
        ("BELLPULL_LIMITS__REFUSALS_MAX", "6"),
        ("BELLPULL_LIMITS__FETCHES_PER_MINUTE_MAX", "5"),
        ("BELLPULL_LIMITS__CALLBACK_HOPS_MAX", "4"),
        ("BELLPULL_STORE__READERS", "2"),
        ("BELLPULL_STORE__POSTGRES_CONNECTIONS_MAX", "5"),
        ("BELLPULL_STORE__STATEMENT_SECONDS_MAX", "4"),
        ("BELLPULL_RETENTION__BODIES_DAYS", "90"),
        ("BELLPULL_RETENTION__IDENTITIES_DAYS", "91"),
        ("BELLPULL_RETENTION__OUTBOX_DAYS", "92"),
        ("BELLPULL_OUTBOX__ALLOWED_PRIVATE_HOSTS", "build.internal:10.0.0.7"),
        ("BELLPULL_OUTBOX__SENDS_MAX", "8"),
        ("BELLPULL_OUTBOX__SENDS_PER_RECEIVER_MAX", "2"),
        ("BELLPULL_OUTBOX__ATTEMPT_SECONDS_MAX", "3"),
        ("BELLPULL_OUTBOX__ATTEMPTS_MAX", "5"),
        ("BELLPULL_OUTBOX__RETRY_FIRST_MS", "6"),
        ("BELLPULL_OUTBOX__RETRY_SECONDS_MAX", "7"),
        ("BELLPULL_OUTBOX__RETRY_AFTER_SECONDS_MAX", "8"),
        ("BELLPULL_OUTBOX__POLL_MS", "11"),
        ("BELLPULL_OUTBOX__DRAIN_SECONDS", "1"),
        ("BELLPULL_WORKER__TURNS_MAX", "1"),
        ("BELLPULL_WORKER__LEASE_SECONDS", "5"),
        ("BELLPULL_WORKER__POLL_MS", "10"),
        ("BELLPULL_WORKER__DRAIN_SECONDS", "0"),
        ("BELLPULL_WORKER__RESUMES_MAX", "3"),
        ("BELLPULL_TOOLS__ANSWER_BYTES_MAX", "9_000"),
        ("BELLPULL_TOOLS__READ_BYTES_MAX", "8_000"),
        ("BELLPULL_TOOLS__MEDIA_BYTES_MAX", "7_000"),
        ("BELLPULL_TOOLS__SEARCH_ENTRIES_MAX", "100"),
        ("BELLPULL_TOOLS__SEARCH_BYTES_MAX", "2_000_000"),
        ("BELLPULL_TOOLS__PAGE_BYTES_MAX", "2_000"),
        ("BELLPULL_SANDBOX__MODE", "none"),
        ("BELLPULL_SANDBOX__USER", "70_000"),
        ("BELLPULL_SANDBOX__MEMORY_BYTES_MAX", "100_000_000"),
        ("BELLPULL_SANDBOX__PROCESSES_MAX", "20"),
        ("BELLPULL_SANDBOX__OPEN_FILES_MAX", "200"),
        ("BELLPULL_SANDBOX__FILE_BYTES_MAX", "2_000_000"),
        ("BELLPULL_SANDBOX__CPU_SECONDS_MAX", "9"),
        ("BELLPULL_SANDBOX__TMP_BYTES_MAX", "3_000_000"),
        ("BELLPULL_SANDBOX__WORKSPACE_BYTES_MAX", "4_000_000"),
        ("BELLPULL_SANDBOX__FREE_DISK_BYTES_MIN", "0"),
        ("BELLPULL_SANDBOX__PATHS", "/opt/a:/opt/b"),
        ("BELLPULL_SHELL__SHELLS_MAX", "2"),
        ("BELLPULL_SHELL__IDLE_SECONDS", "3"),
        ("BELLPULL_SHELL__TIMEOUT_MS", "400"),
        ("BELLPULL_SHELL__TIMEOUT_MS_MAX", "500"),
        ("BELLPULL_SHELL__ANSWER_BYTES_MAX", "6_000"),
        ("BELLPULL_SHELL__OUTPUT_BYTES_MAX", "70_000"),
        ("BELLPULL_EGRESS__CONNECTIONS_MAX", "8"),
        ("BELLPULL_EGRESS__BYTES_MAX", "9_000_000"),
        ("BELLPULL_EGRESS__CONNECT_SECONDS", "7"),
        ("BELLPULL_EGRESS__IDLE_SECONDS", "6"),
        ("BELLPULL_EGRESS__PORTS", "[443]"),
        ("BELLPULL_EGRESS__PACKAGE_HOSTS", "a.example:b.example"),
        ("BELLPULL_MCP__CONNECT_SECONDS", "5"),
        ("BELLPULL_MCP__CALL_SECONDS_MAX", "6"),
        ("BELLPULL_MCP__ANSWER_BYTES_MAX", "2_000"),
        ("BELLPULL_MCP__TOOLS_MAX", "7"),
        ("BELLPULL_MCP__TOOLS_SECONDS", "8"),
        ("BELLPULL_MCP__ALLOWED_PRIVATE_HOSTS", "a.internal:b.internal"),
        ("BELLPULL_MODELS__OPENAI_API", "responses"),
        ("BELLPULL_MODELS__TIMEOUT_SECONDS", "20"),
        ("BELLPULL_MODELS__FIRST_SECONDS", "5"),
        ("BELLPULL_MODELS__IDLE_SECONDS", "4"),
        ("BELLPULL_MODELS__RETRIES_MAX", "0"),
        ("BELLPULL_MODELS__RETRY_FIRST_MS", "3"),
        ("BELLPULL_MODELS__RETRY_SECONDS_MAX", "2"),
        ("BELLPULL_MODELS__RETRY_TOTAL_SECONDS_MAX", "60"),
        ("BELLPULL_MODELS__MAX_TOKENS", "1_000"),
        ("BELLPULL_WORKER__STOP_POLL_MS", "50"),
        ("BELLPULL_TURNS__REQUESTS_MAX", "10"),
        ("BELLPULL_TURNS__REPEATS_MAX", "2"),
        ("BELLPULL_TURNS__APPROVAL_SECONDS_MAX", "60"),
        ("BELLPULL_TURNS__CONTEXT_TOKENS_MAX", "1000"),
        ("BELLPULL_BUDGETS__TURN_COST_USD", "1"),
        ("BELLPULL_BUDGETS__TURN_TOKENS", "10"),
        ("BELLPULL_BUDGETS__TURN_MODEL_CALLS", "10"),
        ("BELLPULL_BUDGETS__TURN_TOOL_CALLS", "10"),
        ("BELLPULL_BUDGETS__TURN_SECONDS", "10"),
        ("BELLPULL_BUDGETS__SESSION_COST_USD", "1"),
        ("BELLPULL_BUDGETS__SESSION_TOKENS", "10"),
        ("BELLPULL_BUDGETS__SESSION_MODEL_CALLS", "10"),
        ("BELLPULL_BUDGETS__SESSION_TOOL_CALLS", "10"),
        ("BELLPULL_BUDGETS__SESSION_SECONDS", "10"),
        ("BELLPULL_BUDGETS__SOURCE_DAY_COST_USD", "1"),
        ("BELLPULL_BUDGETS__SOURCE_DAY_TOKENS", "10"),
        ("BELLPULL_BUDGETS__SOURCE_DAY_MODEL_CALLS", "10"),
        ("BELLPULL_BUDGETS__SOURCE_DAY_TOOL_CALLS", "10"),
        ("BELLPULL_BUDGETS__SOURCE_DAY_SECONDS", "10"),
        ("BELLPULL_BUDGETS__AGENT_DAY_COST_USD", "1"),
        ("BELLPULL_BUDGETS__AGENT_DAY_TOKENS", "10"),
        ("BELLPULL_BUDGETS__AGENT_DAY_MODEL_CALLS", "10"),
        ("BELLPULL_BUDGETS__AGENT_DAY_TOOL_CALLS", "10"),
        ("BELLPULL_BUDGETS__AGENT_DAY_SECONDS", "10"),
        ("BELLPULL_BUDGETS__DAY_COST_USD", "1"),
        ("BELLPULL_BUDGETS__DAY_TOKENS", "10"),
        ("BELLPULL_BUDGETS__DAY_MODEL_CALLS", "10"),
        ("BELLPULL_BUDGETS__DAY_TOOL_CALLS", "10"),
        ("BELLPULL_BUDGETS__DAY_SECONDS", "10"),
        ("BELLPULL_PROJECTS__ROOTS", "/srv/a:/srv/b"),
        ("BELLPULL_PROJECTS__COPY_BYTES_MAX", "5_000_000"),
        ("BELLPULL_PROJECTS__COPY_ENTRIES_MAX", "1000"),
        ("BELLPULL_METRICS__PUBLIC", "true"),
        ("BELLPULL_WEB__STREAMS_MAX", "10"),
        ("BELLPULL_SCHEDULE__CATCH_UP_SECONDS_MAX", "11"),
        ("BELLPULL_FILES__BYTES_MAX", "12"),
        ("BELLPULL_FILES__TOTAL_BYTES_MAX", "13"),
        ("BELLPULL_FILES__UPLOAD_SECONDS_MAX", "14"),
        ("BELLPULL_METRICS__NAMES_MAX", "12"),
        ("BELLPULL_LOG__FORMAT", "json"),
        ("BELLPULL_LOG__FILTER", "warn,bellpull=debug"),
    ];
    let loaded = toml("", &values).load().unwrap();
    assert_eq!(loaded.warnings, []);
    let config = &loaded.config;
    assert_eq!(config.limits.body_bytes_max, 1_048_576);
    assert_eq!(config.projects.roots, [Path::new("/srv/a"), Path::new("/srv/b")]);
    assert_eq!((config.metrics.public, config.log.format), (true, LogFormat::Json));
    for setting in loaded.settings.iter().filter(|setting| setting.key.contains('.')) {
        assert_eq!(setting.origin, Origin::Environment, "{}", setting.key);
    }
    let roots = [("BELLPULL_PROJECTS__ROOTS", r#"["/srv/a:b"]"#)];
    let loaded = toml("", &roots).load().unwrap();
    assert_eq!(loaded.config.projects.roots, [Path::new("/srv/a:b")]);
}

#[test]
fn all_problems_are_reported_at_once() {
    let mut given = toml(
        r#"
        listen = "localhost:4100"
        data-dir = "/srv"
        api_key = "s3cret"
        lease_seconds = 9
        "limits.body_bytes_max" = 5
        store = 5
        [limits]
        body_bytes_max = "25 MiB"
        waiting_sessions_max = 0
        [worker]
        lease_second = 30
        poll_ms = 1
        [metrics]
        public = "yes"
        [log]
        format = "xml"
        filter = "bellpull=loud=very"
        [projects]
        roots = ["/srv", "work", "~/work"]
        "#,
        &[("BELLPULL_WORKER__TURNS_MAX", "many"), ("BELLPULL_DATA_DIR", "~/data")],
    );
    given.flags.public_url = Some("https://user:pass@example.com".to_owned());
    check(
        &given,
        expect![[r#"
            the configuration has 17 problems
            BELLPULL_DATA_DIR: must be a full path
              hint: `~` is not expanded here
            listen: must be an IP address and a port
              hint: `127.0.0.1:4100` for this machine only, `0.0.0.0:4100` or `[::]:4100` for every interface
            --public-url: must be an http or https URL with host and port, and at most a plain path
              hint: for instance `https://bell.example.com` or `https://example.com/bellpull`
            limits.body_bytes_max: must be a whole number from 1_024 to 536_870_912 (bytes)
            limits.waiting_sessions_max: must be a whole number from 1 to 1_000_000_000 (sessions)
            BELLPULL_WORKER__TURNS_MAX: must be a whole number from 1 to 4_096 (turns)
            worker.poll_ms: must be a whole number from 10 to 60_000 (milliseconds)
            projects.roots: entry 2 must be a full path, from `/`; entry 3 must be a full path
              hint: `~` is not expanded here
            metrics.public: must be true or false
            log.format: must be `text` or `json`
            log.filter: is not a log filter
              hint: a level (`info`), or levels by module (`info,bellpull::worker=debug`)
            store: must be a table
            data-dir: unknown key
              hint: did you mean `data_dir`?
            api_key: unknown key
              hint: did you mean `apiKey`?
            lease_seconds: unknown key
              hint: did you mean `worker.lease_seconds`?
            "limits.body_bytes_max": unknown key
              hint: write the part before the dot as a table
            worker.lease_second: unknown key
              hint: did you mean `lease_seconds`?"#]],
    );
}

#[test]
fn numbers_are_held_to_their_ranges() {
    for (key, low, high) in [
        ("limits.body_bytes_max", 1023, 536_870_913),
        ("limits.body_seconds_max", 0, 601),
        ("store.readers", 0, 65),
        ("store.postgres_connections_max", 3, 1001),
        ("retention.bodies_days", 0, 36_501),
        ("worker.lease_seconds", 4, 3601),
        ("worker.poll_ms", 9, 60_001),
        ("worker.turns_max", 0, 4097),
        ("tools.read_bytes_max", 999, 10_000_001),
        ("models.idle_seconds", 0, 86_401),
        ("sandbox.processes_max", 15, 65_537),
        ("shell.timeout_ms", 99, 86_400_001),
        ("egress.connections_max", 0, 10_001),
    ] {
        let (section, name) = key.split_once('.').unwrap();
        for value in [low.to_string(), high.to_string(), "1.5".into(), "-1".into(), "nan".into()] {
            let text = format!("[{section}]\n{name} = {value}");
            let problems = toml(&text, &[]).load().unwrap_err();
            let message = problems.0[0].to_string();
            assert!(message.starts_with(&format!("{key}: must be a whole number from ")));
        }
    }
    check(
        &toml("[limits]\nbody_bytes_max = 100_000_000\n[retention]\nbodies_days = 60", &[]),
        expect![[r#"
            the configuration has 2 problems
            limits.in_flight_bytes_max: must be at least `limits.body_bytes_max`, or the largest body never fits
            retention.identities_days: must be at least `retention.bodies_days`: a body goes with its delivery"#]],
    );
}

#[test]
fn syntax_errors_say_where_and_quote_nothing() {
    check(
        &toml("listen = \"x\"\napiKey = s3cret\n[limits\n", &[]),
        expect![[r#"
            the configuration has 2 problems
            /etc/bellpull/bellpull.toml: line 2, column 10: string values must be quoted, expected literal string
            /etc/bellpull/bellpull.toml: line 3, column 8: unclosed table, expected `]`"#]],
    );
    check(
        &toml("apiKey = \"s3cret\napiKey = \"s3cret\"", &[]),
        expect![[r#"
        the configuration has 2 problems
        /etc/bellpull/bellpull.toml: line 1, column 17: invalid basic string, expected `"`
        /etc/bellpull/bellpull.toml: line 2, column 1: duplicate key"#]],
    );
    check(
        &toml("apiKey = 's3cret'\napiKey = 's3cret'", &[]),
        expect![[r#"
        the configuration has 1 problem
        /etc/bellpull/bellpull.toml: line 2, column 1: duplicate key"#]],
    );
    check(
        &json(r#"{"apiKey": "s3cret", s3cret}"#),
        expect![[r#"
        the configuration has 1 problem
        /etc/bellpull/bellpull.json: line 1, column 22: key must be a string"#]],
    );
    check(
        &json(r#"{"apiKey": "s3cret" "s3cret"}"#),
        expect![[r#"
        the configuration has 1 problem
        /etc/bellpull/bellpull.json: line 1, column 21: expected `,` or `}`"#]],
    );
    check(
        &json(r#"["s3cret"]"#),
        expect![[r#"
        the configuration has 1 problem
        /etc/bellpull/bellpull.json: must be one JSON object"#]],
    );
    check(
        &json(r#"{} {}"#),
        expect![[r#"
        the configuration has 1 problem
        /etc/bellpull/bellpull.json: line 1, column 4: trailing characters"#]],
    );
    check(
        &json(
            r#"{"apiKey": "a", "webhooks": {"a": {"secret": "a", "secret": "b"}}, "apiKey": "b"}"#,
        ),
        expect![[r#"
            the configuration has 2 problems
            webhooks.a.secret: is there twice
            apiKey: is there twice"#]],
    );
    let bytes = b"# fine\nlisten = \"\xff\"";
    check(
        &Given { bytes, ..toml("", &[("BELLPULL_LISTEN", "x")]) },
        expect![[r#"
        the configuration has 2 problems
        /etc/bellpull/bellpull.toml: line 2 is not valid UTF-8
        BELLPULL_LISTEN: must be an IP address and a port
          hint: `127.0.0.1:4100` for this machine only, `0.0.0.0:4100` or `[::]:4100` for every interface"#]],
    );
}

#[test]
fn the_format_is_told_by_name_or_else_by_look() {
    for (name, text) in [
        ("a.toml", "[log]\nfilter = 'warn'"),
        ("a.json", r#"{"log": {"filter": "warn"}}"#),
        ("a.JSON", "\u{feff}{\"log\": {\"filter\": \"warn\"}}"),
        ("config", " \n {\"log\": {\"filter\": \"warn\"}}"),
        ("a.conf", "\u{feff}log.filter = 'warn'"),
    ] {
        let loaded = Given { name, ..toml(text, &[]) }.load().unwrap();
        assert_eq!(loaded.config.log.filter, "warn", "{name}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let key = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=";
    let environment = [
        ("BELLPULL_MASTER_KEY", "s3cret-master-key"),
        ("BELLPULL_VAULT_KEY", key),
        ("ANTHROPIC_API_KEY", "s3cret-anthropic"),
        ("OPENAI_API_KEY", "s3cret-openai"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1/"),
    ];
    let text = r#"
        apiKey = "s3cret-box-key-of-this-box"
        database_url = "postgres://bell:s3cret@db/bell"
        [webhooks.a]
        project = "/p"
        secret = "s3cret-of-the-source"
    "#;
    let mut given = toml(text, &environment);
    given.flags.database_url = Some("postgres://flag:s3cret@db/bell".into());
    let loaded = given.load().unwrap();
    let shown = format!("{loaded:?} {:?}", given.flags);
    let shown = shown + &serde_json::to_string(&loaded.settings).unwrap();
    assert!(!shown.contains("s3cret") && !shown.contains(key), "{shown}");
    assert_eq!(setting(&loaded, "database_url").value, HIDDEN);
    assert_eq!(setting(&loaded, "BELLPULL_MASTER_KEY").value, HIDDEN);
    assert_eq!(loaded.config.vault_key.unwrap().expose_secret(), key);
    let url = loaded.config.models.openai_base_url.as_deref();
    assert_eq!(url, Some("http://127.0.0.1:8000/v1"));

    let file = FileText { path: "a".into(), bytes: text.into() };
    assert!(!format!("{file:?}").contains("115, 51, 99"), "{file:?}");
}

#[test]
fn postgresql_needs_a_vault_key_and_the_key_has_32_bytes() {
    check(
        &toml("database_url = 'postgres://u:s3cret@h/d'", &[]),
        expect![[r#"
        the configuration has 1 problem
        BELLPULL_VAULT_KEY: must be given with PostgreSQL
          hint: make one with `openssl rand -base64 32`, the same for every server"#]],
    );
    check(
        &toml(
            "database_url = 'mysql://u:s3cret@h/d'",
            &[("BELLPULL_VAULT_KEY", "c2VjcmV0"), ("OPENAI_BASE_URL", "localhost:8000")],
        ),
        expect![[r#"
            the configuration has 3 problems
            database_url: must begin with `postgres://`
              hint: leave it out for SQLite in the data directory
            BELLPULL_VAULT_KEY: must be 32 bytes in base64
              hint: make one with `openssl rand -base64 32`
            OPENAI_BASE_URL: must be an http or https URL without user, query and fragment"#]],
    );
}

#[test]
fn unknown_variables_are_worth_a_warning() {
    check(
        &toml(
            "",
            &[
                ("BELLPULL_URL", "http://127.0.0.1:4100"),
                ("BELLPULL_API_KEY", "x"),
                ("BELLPULL_TEST_POSTGRES_URL", "x"),
                ("BELLPULL_SERVICE_PORT", "4100"),
                ("BELLPULL_LISTN", "x"),
                ("BELLPULL_LIMITS_BODY_BYTES_MAX", "x"),
                ("BELLPULL_WEBHOOKS__STRIPE__PROJECT", "x"),
                ("BELLPULL_PORT", "8080"),
                ("BELL", "x"),
            ],
        ),
        expect![[r#"
            fine
            BELLPULL_LIMITS_BODY_BYTES_MAX: is not a variable of Bellpull; ignored
              hint: did you mean `BELLPULL_LIMITS__BODY_BYTES_MAX`?
            BELLPULL_LISTN: is not a variable of Bellpull; ignored
              hint: did you mean `BELLPULL_LISTEN`?
            BELLPULL_PORT: is not a variable of Bellpull; ignored
            BELLPULL_WEBHOOKS__STRIPE__PROJECT: is not a variable of Bellpull; ignored"#]],
    );
    check(
        &toml("", &[("BELLPULL_PORT", "tcp://10.0.0.1:4100"), ("BELLPULL_LISTEN", "\u{fffd}")]),
        expect![[r#"
            the configuration has 1 problem
            BELLPULL_LISTEN: is not valid UTF-8"#]],
    );
}

#[test]
fn a_change_of_some_keys_waits_for_a_restart() {
    let old = load_toml("");
    let text = r#"
        listen = "127.0.0.1:1"
        public_url = "https://bell.example.com"
        [worker]
        turns_max = 1
        [limits]
        refusals_max = 1
        [log]
        filter = "debug"
    "#;
    let new = load_toml(text);
    assert_eq!(old.config.waiting_for_restart(&new.config), ["listen", "worker"]);
    assert!(old.config.waiting_for_restart(&old.config).is_empty());
    for (key, expected) in [
        ("worker.turns_max", true),
        ("store.readers", true),
        ("log.format", true),
        ("BELLPULL_MASTER_KEY", true),
        ("limits.refusals_max", false),
        ("apiKey", false),
    ] {
        assert_eq!(setting(&new, key).needs_restart, expected, "{key}");
    }
}

#[test]
fn reading_watches_what_it_read_also_when_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bellpull.toml");
    let flags = Flags { config: Some(path.clone()), ..Flags::default() };
    let missing = read(&flags);
    let message = missing.outcome.unwrap_err().to_string();
    assert!(message.contains("bellpull.toml: the file cannot be read: No such file"), "{message}");
    assert_eq!(missing.watch.paths().collect::<Vec<_>>(), [&path]);

    let secret = dir.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef").unwrap();
    let text = "[webhooks.a]\npreset = 'bearer'\nsecret = { file = 'secret' }";
    std::fs::write(&path, text).unwrap();
    let found = read(&flags);
    assert_eq!(found.outcome.unwrap().declared.sources.len(), 1);
    assert_eq!(found.watch.paths().collect::<Vec<_>>(), [&path, &secret]);
}

#[test]
fn prices_are_exact() {
    let text = r#"
        [models.prices.plain]
        input_per_mtok = 3
        output_per_mtok = "15.25"
        [models.prices."anthropic/claude-x.1"]
        input_per_mtok = 0.1
        output_per_mtok = 0
        cache_read_per_mtok = 0.000001
    "#;
    let prices = load_toml(text).config.models.prices;
    let micros = |name: &str| {
        let price = &prices[name];
        [price.input, price.output, price.cache_read, price.cache_write].map(|it| it.0)
    };
    assert_eq!(micros("plain"), [3_000_000, 15_250_000, 3_000_000, 3_000_000]);
    assert_eq!(micros("anthropic/claude-x.1"), [100_000, 0, 1, 100_000]);
    check(
        &toml(
            r#"
            [models.prices.a]
            input_per_mtok = -1
            output_per_mtok = 0.0000001
            cache_read = 1
            [models.prices.b]
            output_per_mtok = "2 USD"
            [models]
            prices.c = 5
            "#,
            &[],
        ),
        expect![[r#"
            the configuration has 6 problems
            models.prices.a.input_per_mtok: must be dollars from 0 to 1_000_000 with up to six decimals
            models.prices.a.output_per_mtok: must be dollars from 0 to 1_000_000 with up to six decimals
            models.prices.b.output_per_mtok: must be dollars from 0 to 1_000_000 with up to six decimals
            models.prices.b.input_per_mtok: is required: dollars for a million tokens, 0 for none
            models.prices.c: must be a table
            models.prices.a.cache_read: unknown key"#]],
    );
}

#[test]
fn urls_and_addresses_say_what_they_mean() {
    for (url, expected) in [
        ("https://bell.example.com", true),
        ("http://127.0.0.1:4100/", true),
        ("http://[::1]:4100", true),
        ("http://[::1]", true),
        ("https://bell.example.com/path", true),
        ("https://bell.example.com?x=1", false),
        ("https://bell.example.com:port", false),
        ("https://:4100", false),
        ("https://", false),
        ("bell.example.com", false),
        ("ftp://bell.example.com", false),
        ("https://bell example.com", false),
    ] {
        let given = [("BELLPULL_PUBLIC_URL", url)];
        assert_eq!(toml("", &given).load().is_ok(), expected, "{url}");
    }
    for (listen, expected) in
        [("0.0.0.0:0", true), ("[::]:80", true), (":4100", false), ("4100", false), ("a:1", false)]
    {
        let given = [("BELLPULL_LISTEN", listen)];
        assert_eq!(toml("", &given).load().is_ok(), expected, "{listen}");
    }
}
