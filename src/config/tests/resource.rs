//! What the file declares: sources, their secrets, agents, environments.

use super::*;
use crate::{
    domain::{
        environment::EnvironmentConfig,
        source::{OnRedelivery, Target},
        turn::TurnLimits,
        verifier::Verifier,
    },
    ingest::{Sender, presets},
};

#[test]
fn lowkeys_file_is_read_as_it_is() {
    let loaded = json(
        r#"{
            "apiKey": "lk_0123456789abcdef",
            "theme": "dark",
            "webhook": {},
            "webhooks": {
                "stripe": {
                    "project": "/home/you/projects/billing", "agent": "lucy",
                    "target": "new_session"
                },
                "sentry": {"project": "/home/you/projects/app", "secret": "0123456789abcdef"}
            }
        }"#,
    )
    .load()
    .unwrap();
    assert_eq!(expose(&loaded.declared.box_key), Some("lk_0123456789abcdef"));
    let [stripe, sentry] = &loaded.declared.sources[..] else { panic!("{loaded:?}") };
    assert_eq!(stripe.name, "stripe");
    assert_eq!(stripe.definition.project.as_deref(), Some("/home/you/projects/billing"));
    assert_eq!(stripe.definition.agent.as_deref(), Some("lucy"));
    assert_eq!(stripe.definition.target, Target::NewSession);
    assert_eq!(Sender::defined(&stripe.definition).unwrap().verifier, Verifier::Box {});
    assert_eq!(stripe.definition.secret_key, None);
    assert_eq!(stripe.definition.message_chars_max, 2000);
    assert_eq!(Sender::defined(&sentry.definition).unwrap().verifier, Verifier::Box {});
    assert_eq!(sentry.definition.secret_key.as_deref(), Some("SOURCE_sentry_SECRET"));
    assert_eq!(expose(&sentry.secret), Some("0123456789abcdef"));
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    expect![[r#"
        theme: is not a key of Bellpull; ignored
        webhook: is not a key of Bellpull; ignored
          hint: did you mean `webhooks`?"#]]
    .assert_eq(&warnings.join("\n"));
}

#[test]
fn only_the_top_level_of_lowkeys_file_may_hold_other_things() {
    check(
        &json(
            r#"{
                "apiKey": "lk_0123456789abcdef",
                "webhooks": {"stripe": {"agents": "lucy"}},
                "limits": {"requests": 5}
            }"#,
        ),
        expect![[r#"
            the configuration has 3 problems
            webhooks.stripe.project: is required in a file that has `apiKey`
            webhooks.stripe.agents: unknown key
              hint: did you mean `agent`?
            limits.requests: unknown key"#]],
    );
}

#[test]
fn a_policy_that_cannot_be_read_is_told_of_where_it_stands() {
    check(
        &toml(
            r#"
            [webhooks.a]
            filter = 'event == "x"'
            [webhooks.b]
            filter = "body.x =="
            [webhooks.c]
            filter = 'has(body.x) && body.x in ["a"]'
            target = { key = "{{ body.x" }
            [webhooks.d]
            rules = [{ when = "true" }, { agent = "lucy", agents = 1 }]
            [webhooks.e]
            rules = [{ when = "true", verdict = "dropped" }, 5]
            [webhooks.f]
            preset = "bearer"
            target = "key"
            [webhooks.g]
            message = "{{ body.x }"
            [webhooks.h]
            ignore_actors = ["me"]
            [webhooks.i]
            rules = [{ when = "body.x", verdict = "held", target = "new_session" }]
            "#,
            &[],
        ),
        expect![[r#"
            the configuration has 10 problems
            webhooks.a.filter: line 1, column 1: `event` is not known: there are body, headers, event_type, source, content_type, delivery_id, received_at
            webhooks.b.filter: line 1, column 10: Syntax error: mismatched input '<EOF>'
            webhooks.c.target.key: line 1: syntax error: unexpected end of input, expected end of variable block
            webhooks.d.rules[1].agents: unknown key
              hint: did you mean `agent`?
            webhooks.e.rules[0].verdict: must be `filtered` or `held`
            webhooks.e.rules[1]: must be a table
            webhooks.f.target: the preset `bearer` knows no key; write a template of your own
            webhooks.g.message: line 1: syntax error: unexpected `}`, expected end of variable block
            webhooks.h.ignore_actors: needs to know where the sender says who did it: name the place in `actor`
            webhooks.i.rules[0].verdict: is given beside a route: keep one of them"#]],
    );
}

#[test]
fn a_source_has_one_gate() {
    check(
        &toml(
            r#"
            [webhooks.a]
            preset = "baerer"
            [webhooks.b]
            preset = "stripe"
            verifier = { timestamp = { tolerance = 5 } }
            [webhooks.c]
            preset = "basic"
            header = "X-Token"
            [webhooks.d]
            preset = "header"
            header = "/token"
            [webhooks.e]
            verifier = { type = "s3cret" }
            [webhooks.f]
            verifier = { type = "basic", user = "s3cret" }
            [webhooks.g]
            verifier = { type = "header", header = "X-A", haeder = "X-B" }
            username = "s3cret"
            [webhooks.h]
            verifier = { type = "basic", username = { s3cret = 1 } }
            [webhooks.i]
            verifier = "s3cret"
            [webhooks.j]
            verifier = { type = "basic", username = "a:b" }
            [webhooks.k]
            preset = 5
            [webhooks.l]
            preset = "header"
            header = "X-Token"
            verifier = { header = "X-Token" }
            "#,
            &[],
        ),
        expect![[r#"
            the configuration has 14 problems
            webhooks.a.preset: is not a known sender
              hint: did you mean `bearer`?
            webhooks.b.verifier.tolerance: is not a field of this verifier
            webhooks.c.header: belongs to `preset` = "header" only
              hint: a `verifier` has its own `header`
            webhooks.c.username: is required
            webhooks.d.header: is not a header name
            webhooks.e.verifier.type: must be one of `bearer`, `basic`, `header`, `box`, `query`, `body_field`, `hmac`, `ed25519`, `ecdsa_p256`, `body_hmac`, `certificate`, `jwt`, `one_of`
            webhooks.f.verifier.user: is not a field of this verifier
            webhooks.g.username: belongs to `preset` = "basic" only
              hint: a `verifier` has its own `username`
            webhooks.g.verifier.haeder: is not a field of this verifier
              hint: did you mean `header`?
            webhooks.h.verifier: has a field of the wrong kind
            webhooks.i.verifier: must be an object with a `type`
            webhooks.j.verifier.username: must not be empty, nor contain `:`
            webhooks.k.preset: must be a text
            webhooks.l.header: is given beside `verifier`, which has its own"#]],
    );
}

#[test]
fn what_a_source_says_is_checked() {
    check(
        &toml(
            r#"
            webhooks.x = 5
            [webhooks.a]
            target = "sometimes"
            identity = ["x-id", "no header"]
            event_type = "x-event"
            on_redelivery = "again"
            message_chars_max = 0
            body_hash_window_seconds = 3_000_000
            environment_id = "default"
            project = ""
            agent = ["lucy"]
            secret = 5
            secret_key = "a b"
            bodyhash_window_seconds = 5
            [webhooks.b]
            target = { key = "{{ body.id }}", also = "x" }
            secret = "0123456789abcdef"
            secret_key = "B"
            [webhooks.c]
            preset = "bearer"
            debounce_seconds = 30
            debounce_seconds_max = 20
            "#,
            &[],
        ),
        expect![[r#"
            the configuration has 17 problems
            webhooks.a.secret: must be a text, { file = "…" } or { env = "…" }
            webhooks.a.secret_key: must be 1 to 128 letters, digits, `_`, `-` or `.`, and not dots alone
            webhooks.a.agent: must be a text
            webhooks.a.environment_id: must be the id of an environment (`env_…`)
            webhooks.a.project: must not be empty
            webhooks.a.target: must be `new_session`, `key`, a session id or { key = "<template>" }
            webhooks.a.identity: entry 2 is neither a header name nor a JSON pointer
            webhooks.a.body_hash_window_seconds: must be a whole number from 0 to 2_592_000 (seconds)
            webhooks.a.event_type: must be a list
            webhooks.a.on_redelivery: must be `duplicate` or `rerun_failed`
            webhooks.a.message_chars_max: must be a whole number from 1 to 1_000_000 (characters)
            webhooks.a.environment_id: is given beside `project`: keep one of them
            webhooks.b.secret_key: is given beside `secret`: keep one of them
            webhooks.b.target: must be `new_session`, `key`, a session id or { key = "<template>" }
            webhooks.c.debounce_seconds_max: must not be less than `debounce_seconds`, which is 30
            webhooks.x: must be a table
            webhooks.a.bodyhash_window_seconds: unknown key
              hint: did you mean `body_hash_window_seconds`?"#]],
    );
}

#[test]
fn names_of_sources_are_one_per_spelling() {
    check(
        &toml("[webhooks.stripe]\n[webhooks.Stripe]\n[webhooks.GitHub]\n[webhooks.'a/b']", &[]),
        expect![[r#"
            the configuration has 3 problems
            webhooks.Stripe: differs only in case from `webhooks.stripe`
            webhooks.GitHub: the name must be 1 to 64 lower-case letters, digits, `_` or `-`, and begin with a letter or digit
              hint: for instance `github`
            webhooks."a/b": the name must be 1 to 64 lower-case letters, digits, `_` or `-`, and begin with a letter or digit"#]],
    );
}

#[test]
fn presets_become_verifiers_and_the_vault_is_asked_when_no_secret_is_given() {
    let loaded = load_toml(
        r#"
        [webhooks.a]
        preset = "bearer"
        [webhooks.b]
        preset = "basic"
        username = "bob"
        secret_key = "BOB"
        [webhooks.c]
        preset = "header"
        [webhooks.d]
        verifier = { type = "box" }
        on_redelivery = "rerun_failed"
        identity = ["X-Id", "/data/id"]
        target = "sesn_01hzzzzzzzzzzzzzzzzzzzzzzz"
        "#,
    );
    let gates: Vec<_> = loaded
        .declared
        .sources
        .iter()
        .map(|it| {
            let sender = Sender::defined(&it.definition).unwrap();
            (sender.verifier, it.definition.secret_key.as_deref())
        })
        .collect();
    assert_eq!(
        gates,
        [
            (Verifier::Bearer {}, Some("SOURCE_a_SECRET")),
            (Verifier::Basic { username: "bob".into() }, Some("BOB")),
            (Verifier::Header { header: "X-Webhook-Secret".into() }, Some("SOURCE_c_SECRET")),
            (Verifier::Box {}, None),
        ]
    );
    let last = &loaded.declared.sources[3].definition;
    assert_eq!(last.on_redelivery, OnRedelivery::RerunFailed);
    assert_eq!(last.identity, ["x-id", "/data/id"].map(|it| it.parse().unwrap()));
    assert!(matches!(last.target, Target::Session(_)));
}

#[test]
fn every_preset_of_the_table_is_read() {
    for preset in presets() {
        let text = format!("[webhooks.a]\npreset = '{}'", preset.id);
        let message = toml(&text, &[]).load().err().map_or_else(String::new, |it| it.to_string());
        let expected = match preset.id.as_str() {
            "basic" => "the configuration has 1 problem\nwebhooks.a.username: is required",
            _ => "",
        };
        assert_eq!(message, expected, "{}", preset.id);
    }
}

#[test]
fn secrets_come_from_text_file_or_variable() {
    let text = r#"
        apiKey = { file = "/run/secrets/box" }
        [webhooks.builds]
        environment_id = "env_0"
        secret = { file = "secrets/builds" }
        [webhooks.ci]
        environment_id = "env_0"
        secret = { env = "BELLPULL_CI" }
        [webhooks.short]
        environment_id = "env_0"
        secret = "short"
    "#;
    let loaded = toml(text, &[("BELLPULL_CI", "a-secret-from-a-variable")]).load().unwrap();
    assert_eq!(expose(&loaded.declared.box_key), Some("the-box-key-of-this-box"));
    let secrets: Vec<_> = loaded.declared.sources.iter().map(|it| expose(&it.secret)).collect();
    let expected = ["a-secret-from-a-file", "a-secret-from-a-variable", "short"];
    assert_eq!(secrets, expected.map(Some));
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    expect![[r#"
        webhooks.short.secret: has fewer than 16 characters
          hint: make one with `openssl rand -hex 32`"#]]
    .assert_eq(&warnings.join("\n"));

    let text = r#"
        apiKey = { file = "/run/secrets/missing" }
        [webhooks.a]
        project = "/p"
        secret = { env = "NOT_SET" }
        [webhooks.b]
        project = "/p"
        secret = { file = "/run/secrets/empty" }
        [webhooks.c]
        project = "/p"
        secret = { file = "/run/secrets/box", env = "HOME" }
        [webhooks.d]
        project = "/p"
        secret = ""
        [webhooks.e]
        project = "/p"
        secret = { value = "s3cret" }
    "#;
    check(
        &toml(text, &[]),
        expect![[r#"
        the configuration has 6 problems
        apiKey: the file `/run/secrets/missing` cannot be read: entity not found
        webhooks.a.secret: the variable `NOT_SET` is not set, or empty
        webhooks.b.secret: must not be empty
        webhooks.c.secret: as a table, must be { file = "…" } or { env = "…" }
        webhooks.d.secret: must not be empty
        webhooks.e.secret: as a table, must be { file = "…" } or { env = "…" }"#]],
    );
}

#[test]
fn agents_are_read_by_the_rules_of_the_api() {
    let loaded = load_toml(
        r#"
        [agents.lucy]
        model = { id = "claude-sonnet-5", effort = "low" }
        system = { file = "lucy.md" }
        metadata = { team = "billing" }
        tools = [{ type = "agent_toolset_20260401" }]
        turns_at_once_max = 2
        [agents."The other one"]
        model = "rehearsal"
        "#,
    );
    let [lucy, other] = &loaded.declared.agents[..] else { panic!("{loaded:?}") };
    assert_eq!((lucy.name.as_str(), lucy.spec.name.as_str()), ("lucy", "lucy"));
    assert_eq!(lucy.spec.system.as_deref(), Some("You are Lucy.\n"));
    assert_eq!(lucy.spec.metadata["team"], "billing");
    assert_eq!(lucy.spec.tools.len(), 1);
    assert_eq!(other.spec.model.id, "rehearsal");
    assert_eq!((lucy.limits.at_once_max, lucy.limits.per_minute_max), (Some(2), None));
    assert_eq!(other.limits, TurnLimits::default());

    check(
        &toml(
            r#"
            [agents.lucy]
            modle = "claude-sonnet-5"
            system = { env = "HOME" }
            tools = [{ type = "agent_toolset_20260401" }, { type = "shell" }]
            metadata = { team = 5 }
            skills = "all"
            [agents.bob]
            model = { id = "x", efort = "low" }
            system = { file = "bob.md" }
            mcp_servers = [{ type = "url", name = "s", url = "https://example.com" }]
            description = 5
            turns_per_minute_max = 0
            [agents.agent_1]
            model = { id = "x", effort = "huge" }
            [agents.""]
            model = "rehearsal"
            "#,
            &[],
        ),
        expect![[r#"
            the configuration has 14 problems
            agents.lucy.system: as a table, must be { file = "…" }
            agents.lucy.metadata.team: must be a text
            agents.lucy.model: is required
              hint: a model id, or `rehearsal`, which needs no key
            agents.lucy.tools[1].type: must be `agent_toolset_20260401`, `mcp_toolset` or `custom`
            agents.lucy.skills: must be a list
            agents.bob.turns_per_minute_max: must be a whole number from 1 to 10_000 (turns)
            agents.bob.system: the file `/etc/bellpull/bob.md` cannot be read: entity not found
            agents.bob.model.efort: unknown key
              hint: did you mean `effort`?
            agents.bob.description: must be a text
            agents.bob.mcp_servers: `s` is not named by any `mcp_toolset` in `tools`
            agents.agent_1: the name reads like the id of an agent
              hint: names do not begin with `agent_`
            agents.agent_1.model.effort: must be one of low, medium, high, xhigh, max
            agents."".name: must have 1 to 256 characters
            agents.lucy.modle: unknown key
              hint: did you mean `model`?"#]],
    );
}

#[test]
fn environments_are_read_by_the_rules_of_the_api_and_sources_name_them() {
    let loaded = load_toml(
        r#"
        [environments.shop]
        type = "local"
        project = "/srv/shop"
        workspace = "worktree"
        networking = { type = "limited", allowed_hosts = ["a.example"] }
        setup = ["make deps"]
        variables = { CI = "1", TOKEN = { secret = "NPM_TOKEN" } }
        metadata = { team = "shop" }
        [environments."The fresh one"]
        type = "cloud"
        [webhooks.a]
        preset = "bearer"
        environment = "shop"
        "#,
    );
    let [shop, fresh] = &loaded.declared.environments[..] else { panic!("{loaded:?}") };
    let wanted = serde_json::json!({"type": "local", "project": "/srv/shop",
        "workspace": "worktree",
        "networking": {"type": "limited", "allowed_hosts": ["a.example"]},
        "setup": ["make deps"], "variables": {"CI": "1", "TOKEN": {"secret": "NPM_TOKEN"}}});
    assert_eq!(shop.config, EnvironmentConfig::parse(&wanted).unwrap());
    assert_eq!((shop.name.as_str(), shop.metadata["team"].as_str()), ("shop", "shop"));
    assert_eq!(fresh.config, EnvironmentConfig::cloud());
    assert_eq!(loaded.declared.sources[0].environment.as_deref(), Some("shop"));

    check(
        &toml(
            r#"
            [environments.shop]
            type = "local"
            workspace = "shard"
            networking = { type = "limited", allowed_hosts = ["http://a"] }
            packages = { npm = ["x"] }
            setup = "make"
            variables = { PATH = "/bin" }
            metadata = { team = 5 }
            projekt = "/srv/shop"
            [environments.other]
            type = "remote"
            [environments.typeless]
            project = "/srv/shop"
            [environments.theirs]
            type = "self_hosted"
            setup = ["make"]
            [environments.env_1]
            type = "cloud"
            packages = { npm = ["x"], brew = [] }
            [webhooks.a]
            preset = "bearer"
            environment = "shopp"
            [webhooks.b]
            preset = "bearer"
            environment = "shop"
            project = "/srv/shop"
            "#,
            &[],
        ),
        expect![[r#"
            the configuration has 15 problems
            webhooks.a.environment: the file declares no environment `shopp`
              hint: did you mean `shop`?
            webhooks.b.environment: is given beside `project`: keep one of them
            environments.shop.metadata.team: must be a text
            environments.shop.packages: is not a field of it
            environments.shop.project: is required and must be an absolute path
            environments.shop.workspace: must be `shared`, `worktree` or `copy`
            environments.shop.networking.allowed_hosts: `http://a` is no name of a host
            environments.shop.setup: must be a list of commands
            environments.shop.variables.PATH: is no name of a variable that may be set: letters, digits and `_`, and none that the sandbox sets itself
            environments.other.type: must be `local`, `cloud` or `self_hosted`
            environments.typeless.type: is required
              hint: `local` for a project, `cloud` for a fresh workspace
            environments.theirs.setup: is nothing that a `self_hosted` environment has: it is the client's
            environments.env_1: the name reads like the id of an environment
              hint: names do not begin with `env_`
            environments.env_1.packages.brew: is not a field of it
            environments.shop.projekt: unknown key
              hint: did you mean `project`?"#]],
    );
}

#[test]
fn the_box_key_is_no_admin_key() {
    let key = "0123456789abcdef";
    let text = format!("apiKey = '{key}'");
    check(
        &toml(&text, &[("BELLPULL_MASTER_KEY", key)]),
        expect![[r#"
            the configuration has 1 problem
            apiKey: must not be the master key, which passes no webhook"#]],
    );
}

#[test]
fn null_is_the_same_as_left_out() {
    let text = r#"{"apiKey": null, "listen": null, "limits": null, "projects": {"roots": null},
        "webhooks": {"a": {"project": null, "secret": null, "preset": null, "verifier": null}},
        "agents": {"lucy": {"model": "rehearsal", "system": null, "metadata": null}}}"#;
    let loaded = json(text).load().unwrap();
    assert_eq!(loaded.warnings, []);
    assert!(loaded.declared.box_key.is_none());
    assert_eq!(loaded.declared.sources[0].definition.secret_key, None);
    assert_eq!(setting(&loaded, "listen").origin, Origin::Default);
}
