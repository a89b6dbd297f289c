//! What the vaults of a session give to its work: variables for its programs, and who it is to MCP
//! servers.
//!
//! Invariant: it is looked up when it is used, so what was archived or deleted is used no more. A
//! program that has a value can send it wherever it can go, so where a variable may only reach some
//! hosts, so may the whole session. Left out: renewing tokens.

use crate::{
    domain::{
        access,
        credential::{Auth, Credential, Networking, Secrets},
    },
    id::Id as _,
    store::{self, Sealed, SealedCredential, Store},
    tool::{self, egress::Policy},
    vault::{Place, Vault},
};

/// What a session's programs are given.
#[derive(Debug, Default)]
pub(super) struct Variables {
    pub(super) values: Vec<(String, String)>,
    /// Where the session may go at most, if any of them says so.
    hosts: Option<Vec<String>>,
}

impl Variables {
    /// A session's way out, and no further than its variables may go.
    pub(super) fn narrow(&self, policy: Option<Policy>) -> Option<Policy> {
        let Some(hosts) = &self.hosts else { return policy };
        let hosts = match policy? {
            Policy::Unrestricted => hosts.clone(),
            Policy::Limited(others) => access::common(hosts, &others),
        };
        (!hosts.is_empty()).then_some(Policy::Limited(hosts))
    }
}

/// The values of a credential, opened.
pub(super) fn open(vault: &Vault, found: &SealedCredential) -> Result<Secrets, tool::Error> {
    let Credential { id, version, .. } = &found.credential;
    let place = Place { kind: Sealed::Credential.kind(), id: id.as_str(), version: *version };
    let opened = vault.open(place, &found.sealed).ok();
    opened.and_then(|text| Secrets::parse(&text)).ok_or_else(|| {
        tool::Error::Fatal(anyhow::anyhow!("a sealed credential does not open: {}", id.as_str()))
    })
}

/// The variables of a session with these vaults. Where two are of one name, the first vault's counts.
pub(super) async fn variables(
    vaults: &[String],
    store: &Store,
    vault: Option<&Vault>,
) -> Result<Variables, tool::Error> {
    let mut variables = Variables::default();
    let (false, Some(vault)) = (vaults.is_empty(), vault) else { return Ok(variables) };
    let fatal = |error: store::Error| tool::Error::Fatal(error.into());
    for found in store.usable_credentials(vaults).await.map_err(fatal)? {
        let Auth::EnvironmentVariable { secret_name, networking, .. } = &found.credential.auth
        else {
            continue;
        };
        if variables.values.iter().any(|(name, _)| name == secret_name) {
            continue;
        }
        let value = open(vault, &found)?.value.expose().to_owned();
        variables.values.push((secret_name.clone(), value));
        if let Networking::Limited { allowed_hosts } = networking {
            variables.hosts.get_or_insert_default().extend(allowed_hosts.iter().cloned());
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_goes_no_further_than_its_variables() {
        let hosts = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let limited = |names: &[&str]| Some(Policy::Limited(hosts(names)));
        let free = Variables::default();
        assert_eq!(free.narrow(Some(Policy::Unrestricted)), Some(Policy::Unrestricted));
        let bound = Variables {
            hosts: Some(hosts(&["api.example.com", "*.example.org"])),
            ..Variables::default()
        };
        assert_eq!(bound.narrow(None), None);
        let both = limited(&["api.example.com", "*.example.org"]);
        assert_eq!(bound.narrow(Some(Policy::Unrestricted)), both);
        assert_eq!(bound.narrow(limited(&["evil.example", "example.org"])), None);
        let below = limited(&["api.example.com", "a.example.org"]);
        assert_eq!(bound.narrow(limited(&["*.example.com", "a.example.org"])), below);
    }
}
