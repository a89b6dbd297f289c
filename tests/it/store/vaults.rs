//! Vaults, credentials and what was pinned of MCP servers.

use std::time::Duration;

use bellpull::{
    domain::credential::{Auth, Credential, Networking, Vault},
    id::{CredentialId, Id, VaultId},
    store::{Error, PinnedBy, Sealed},
};
use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    Bench,
    bench::{HOUR, change},
};

on_both!(
    what_is_archived_has_no_value_and_frees_its_key,
    a_vault_takes_its_credentials_along,
    a_value_is_replaced_by_who_has_seen_the_one_before,
    one_of_many_renews_a_token,
    a_renewal_of_what_was_put_away_changes_nothing,
    credentials_are_rewrapped_with_the_secrets,
    a_tool_stays_what_it_was_first_seen_as,
);

async fn make_vault(bench: &Bench) -> Vault {
    let at = bench.clock.now();
    let vault = Vault {
        id: VaultId::new(at),
        display_name: "Ada's".to_owned(),
        metadata: Default::default(),
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    bench.store.create_vault(vault, change("vault.create")).await.unwrap()
}

fn bearer(url: &str) -> Auth {
    Auth::StaticBearer { mcp_server_url: url.to_owned() }
}

async fn put(bench: &Bench, vault: &Vault, auth: Auth) -> Result<Credential, Error> {
    let at = bench.clock.now();
    let credential = Credential {
        id: CredentialId::new(at),
        vault_id: vault.id.clone(),
        display_name: None,
        metadata: Default::default(),
        auth,
        version: 1,
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    let sealed = Bytes::from_static(b"old:sealed");
    bench.store.create_credential(credential, sealed, change("credential.create")).await
}

async fn usable(bench: &Bench, vaults: &[&Vault]) -> Vec<(CredentialId, Bytes)> {
    let ids: Vec<String> = vaults.iter().map(|vault| vault.id.to_string()).collect();
    let found = bench.store.usable_credentials(&ids).await.unwrap();
    found.into_iter().map(|it| (it.credential.id, it.sealed)).collect()
}

const URL: &str = "https://mcp.example.com/mcp";

async fn what_is_archived_has_no_value_and_frees_its_key(bench: Bench) {
    let vault = make_vault(&bench).await;
    let first = put(&bench, &vault, bearer(URL)).await.unwrap();
    assert_fails!(put(&bench, &vault, bearer(&format!("{URL}/"))).await, Error::Conflict(_));
    let archive =
        || bench.store.archive_credential(&vault.id, &first.id, change("credential.archive"));
    let archived = archive().await.unwrap();
    assert!(archived.archived_at.is_some());
    assert_eq!(archive().await.unwrap(), archived);
    let (_, sealed) = bench.store.credential(&vault.id, &first.id).await.unwrap();
    assert_eq!(sealed, None);
    assert_eq!(
        bench.place.number("select count(*) from credentials where sealed is not null").await,
        0
    );
    let second = put(&bench, &vault, bearer(URL)).await.unwrap();
    let found: Vec<_> = usable(&bench, &[&vault]).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, [second.id]);
}

async fn a_vault_takes_its_credentials_along(bench: Bench) {
    let (first, second) = (make_vault(&bench).await, make_vault(&bench).await);
    let variable = Auth::EnvironmentVariable {
        secret_name: "TOKEN".to_owned(),
        networking: Networking::Unrestricted,
        injection_location: serde_json::from_value(json!({"body": true, "header": true})).unwrap(),
    };
    let a = put(&bench, &first, bearer(URL)).await.unwrap();
    bench.clock.advance(Duration::from_millis(1));
    let b = put(&bench, &first, variable).await.unwrap();
    let c = put(&bench, &second, bearer(URL)).await.unwrap();
    let ids =
        |found: Vec<(CredentialId, Bytes)>| found.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(usable(&bench, &[&second, &first]).await), [c.id.clone(), b.id.clone(), a.id]);
    bench.store.archive_vault(&first.id, change("vault.archive")).await.unwrap();
    assert_eq!(ids(usable(&bench, &[&second, &first]).await), [c.id]);
    assert_eq!(
        bench.place.number("select count(*) from credentials where sealed is not null").await,
        1
    );
    assert_fails!(put(&bench, &first, bearer(URL)).await, Error::Conflict(_));
    bench.store.delete_vault(&second.id, change("vault.delete")).await.unwrap();
    assert_eq!(usable(&bench, &[&second, &first]).await, []);
    bench.store.delete_vault(&first.id, change("vault.delete")).await.unwrap();
    assert_eq!(bench.place.number("select count(*) from credentials").await, 0);
    assert_fails!(bench.store.credential(&first.id, &b.id).await, Error::NotFound);
}

async fn a_value_is_replaced_by_who_has_seen_the_one_before(bench: Bench) {
    let vault = make_vault(&bench).await;
    let made = put(&bench, &vault, bearer(URL)).await.unwrap();
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let (store, vault, id) = (bench.store.clone(), vault.id.clone(), made.id.clone());
        all.spawn(async move {
            let apply = |credential: &mut Credential, sealed: &[u8]| {
                let text = format!("{} {}", String::from_utf8_lossy(sealed), credential.version);
                Ok(Some(Bytes::from(text)))
            };
            store.update_credential(&vault, &id, apply, change("credential.update")).await.unwrap()
        });
    }
    all.join_all().await;
    let (credential, sealed) = bench.store.credential(&vault.id, &made.id).await.unwrap();
    assert_eq!(credential.version, 9);
    assert_eq!(sealed.unwrap(), Bytes::from_static(b"old:sealed 1 2 3 4 5 6 7 8"));
}

async fn one_of_many_renews_a_token(bench: Bench) {
    let vault = make_vault(&bench).await;
    let made = put(&bench, &vault, bearer(URL)).await.unwrap();
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let node = bench.another_node().await;
        let id = made.id.clone();
        all.spawn(async move { node.store.begin_renewal(&id, 1, HOUR).await.unwrap() });
    }
    let n_begun = all.join_all().await.into_iter().filter(|begun| *begun).count();
    assert_eq!(n_begun, 1);
    let renewed = || Some((bearer(URL), Bytes::from_static(b"renewed")));
    assert!(bench.store.end_renewal(&made.id, 1, renewed()).await.unwrap());
    // Whoever saw the old one only neither begins nor ends one.
    assert!(!bench.store.begin_renewal(&made.id, 1, HOUR).await.unwrap());
    assert!(!bench.store.end_renewal(&made.id, 1, renewed()).await.unwrap());
    // One that failed, or whose server died, makes way.
    assert!(bench.store.begin_renewal(&made.id, 2, HOUR).await.unwrap());
    assert!(!bench.store.begin_renewal(&made.id, 2, HOUR).await.unwrap());
    bench.store.end_renewal(&made.id, 2, None).await.unwrap();
    assert!(bench.store.begin_renewal(&made.id, 2, Duration::ZERO).await.unwrap());
    bench.place.sql("update credentials set renewing_until = 1").await;
    assert!(bench.store.begin_renewal(&made.id, 2, HOUR).await.unwrap());
}

async fn a_renewal_of_what_was_put_away_changes_nothing(bench: Bench) {
    let vault = make_vault(&bench).await;
    let made = put(&bench, &vault, bearer(URL)).await.unwrap();
    assert!(bench.store.begin_renewal(&made.id, 1, HOUR).await.unwrap());
    let archive = bench.store.archive_credential(&vault.id, &made.id, change("credential.archive"));
    archive.await.unwrap();
    let renewed = Some((bearer(URL), Bytes::from_static(b"renewed")));
    assert!(!bench.store.end_renewal(&made.id, 1, renewed).await.unwrap());
    assert_eq!(bench.store.credential(&vault.id, &made.id).await.unwrap().1, None);
    assert!(!bench.store.begin_renewal(&made.id, 1, HOUR).await.unwrap());
}

async fn credentials_are_rewrapped_with_the_secrets(bench: Bench) {
    let vault = make_vault(&bench).await;
    let made = put(&bench, &vault, bearer(URL)).await.unwrap();
    let gone = put(&bench, &vault, bearer("https://other.example.com")).await.unwrap();
    let archive = bench.store.archive_credential(&vault.id, &gone.id, change("credential.archive"));
    archive.await.unwrap();
    let wanted = made.id.to_string();
    let rewrap = move |of: Sealed, id: &str, version: i64, sealed: &[u8]| {
        assert_eq!((of, id, version), (Sealed::Credential, wanted.as_str(), 1));
        let value = std::str::from_utf8(sealed).unwrap().strip_prefix("old:").unwrap();
        Ok(Some(Bytes::from(format!("new:{value}"))))
    };
    let canary = |_: &str| Ok(None);
    let n = bench.store.rewrap_secrets(rewrap, canary, change("vault.rotate")).await.unwrap();
    assert_eq!(n, 1);
    let (credential, sealed) = bench.store.credential(&vault.id, &made.id).await.unwrap();
    assert_eq!((credential.version, sealed.unwrap()), (1, Bytes::from_static(b"new:sealed")));
}

async fn a_tool_stays_what_it_was_first_seen_as(bench: Bench) {
    let by =
        PinnedBy { agent_id: bench.agent.id.clone(), agent_version: 1, server: URL.to_owned() };
    let seen = |tools: &[(&str, &str)]| {
        tools.iter().map(|(tool, hash)| ((*tool).to_owned(), (*hash).to_owned())).collect()
    };
    let pin = async |by: &PinnedBy, tools: &[(&str, &str)]| {
        let pinned = bench.store.pin_tools(by, seen(tools)).await.unwrap();
        pinned.into_iter().collect::<Vec<_>>()
    };
    let pinned: Vec<(String, String)> = seen(&[("a", "1"), ("b", "1")]);
    assert_eq!(pin(&by, &[("a", "1"), ("b", "1")]).await, pinned);
    assert_eq!(pin(&by, &[("a", "2"), ("b", "1")]).await, pinned);
    let with_c: Vec<(String, String)> = seen(&[("a", "1"), ("b", "1"), ("c", "2")]);
    assert_eq!(pin(&by, &[("a", "2"), ("c", "2")]).await, with_c);
    bench.store.repin_tool(&by, "a".to_owned(), "2".to_owned()).await.unwrap();
    let after: Vec<(String, String)> = seen(&[("a", "2"), ("b", "1"), ("c", "2")]);
    assert_eq!(pin(&by, &[("a", "2")]).await, after);
    // Another version has not seen any.
    let next = PinnedBy { agent_version: 2, ..by };
    let fresh: Vec<(String, String)> = seen(&[("a", "3")]);
    assert_eq!(pin(&next, &[("a", "3")]).await, fresh);
}
