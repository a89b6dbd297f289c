use super::*;

const NOW: Timestamp = Timestamp(1_000);

#[test]
fn urls_match_by_what_they_lead_to() {
    let bearer = |url: &str| Auth::StaticBearer { mcp_server_url: url.to_owned() };
    let auth = bearer("https://MCP.example.com:443/mcp/");
    for url in ["https://mcp.example.com/mcp", "HTTPS://mcp.example.com/mcp/"] {
        assert!(auth.serves(url), "{url}");
        assert_eq!(auth.key(), bearer(url).key());
    }
    for url in [
        "http://mcp.example.com/mcp",
        "https://mcp.example.com/",
        "https://mcp.example.com/mcp/x",
        "https://mcp.example.com:8443/mcp",
        "https://a.mcp.example.com/mcp",
        "https://mcp.example.com/mcp?a=b",
        "https://mcp.example.com.evil.example/mcp",
    ] {
        assert!(!auth.serves(url), "{url}");
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    let field = |given: Value| Auth::create(&given, NOW).unwrap_err().field;
    let url = "https://mcp.example.com/mcp";
    assert_eq!(field(json!({"type": "x"})), "auth.type");
    assert_eq!(field(json!({"type": "static_bearer", "mcp_server_url": url})), "auth.token");
    let odd = json!({"type": "static_bearer", "token": "t", "mcp_server_url": "ftp://a"});
    assert_eq!(field(odd), "auth.mcp_server_url");
    let past = json!({"type": "mcp_oauth", "access_token": "t", "mcp_server_url": url,
        "expires_at": "1970-01-01T00:00:00Z"});
    assert_eq!(field(past), "auth.expires_at");
    let variable = |more: Value| {
        let mut given = json!({"type": "environment_variable", "secret_name": "TOKEN",
            "secret_value": "v", "networking": {"type": "unrestricted"}});
        for (key, value) in more.as_object().unwrap() {
            given[key] = value.clone();
        }
        given
    };
    for (more, expected) in [
        (json!({"secret_name": "PATH"}), "auth.secret_name"),
        (json!({"secret_name": "1A"}), "auth.secret_name"),
        (json!({"networking": null}), "auth.networking"),
        (
            json!({"networking": {"type": "limited", "allowed_hosts": []}}),
            "auth.networking.allowed_hosts",
        ),
        (
            json!({"networking": {"type": "limited", "allowed_hosts": ["https://a"]}}),
            "auth.networking.allowed_hosts",
        ),
        (json!({"injection_location": {}}), "auth.injection_location"),
        (json!({"injection_location": {"header": "x"}}), "auth.injection_location.header"),
    ] {
        assert_eq!(field(variable(more)), expected);
    }
    let (auth, _) = Auth::create(&variable(json!({})), NOW).unwrap();
    assert_eq!(serde_json::to_value(auth).unwrap()["injection_location"]["body"], true);
    let (auth, _) =
        Auth::create(&variable(json!({"injection_location": {"header": true}})), NOW).unwrap();
    assert_eq!(serde_json::to_value(auth).unwrap()["injection_location"]["body"], false);
}

#[test]
fn an_update_changes_what_it_names_and_nothing_that_is_fixed() {
    let given = json!({"type": "mcp_oauth", "access_token": "a",
        "mcp_server_url": "https://mcp.example.com",
        "refresh": {"client_id": "c", "refresh_token": "r",
            "token_endpoint": "https://auth.example.com/token", "scope": "s",
            "token_endpoint_auth": {"type": "client_secret_post", "client_secret": "x"}}});
    let (mut auth, mut secrets) = Auth::create(&given, NOW).unwrap();
    let shown = serde_json::to_value(&auth).unwrap();
    assert_eq!(shown["refresh"]["token_endpoint_auth"], json!({"type": "client_secret_post"}));
    assert!(!shown.to_string().contains("\"x\""));
    let mut update = |given: Value| auth.update(&mut secrets, &given, NOW);
    assert_eq!(update(json!({"type": "mcp_oauth", "access_token": "b"})), Ok(true));
    let scope = json!({"type": "mcp_oauth", "refresh": {"scope": null}});
    assert_eq!(update(scope), Ok(false));
    let client = json!({"type": "mcp_oauth", "refresh": {"client_id": "d"}});
    assert_eq!(update(client).unwrap_err().field, "auth.refresh.client_id");
    let other = json!({"type": "static_bearer", "token": "b"});
    assert_eq!(update(other).unwrap_err().field, "auth.type");
    assert_eq!(secrets.value.expose(), "b");
    let sealed = secrets.to_text();
    let back = Secrets::parse(&sealed).unwrap();
    assert_eq!(back.refresh_token.unwrap().expose(), "r");
    assert_eq!(back.client_secret.unwrap().expose(), "x");
    assert!(!format!("{secrets:?}").contains('r') || format!("{secrets:?}") == "Secrets(…)");
}
