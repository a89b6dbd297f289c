//! What the tools of a session may: which files they write, and whether they reach the network.
//!
//! Invariant: a session that began with an event from outside may less than one that a person
//! began, until its agent or source allows more by name. Left out: how it is enforced.

use std::path::{Component, Path};

/// Which hosts may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    None,
    /// These, by name: `example.com` is itself, `*.example.com` whatever is below it.
    Limited(Vec<String>),
    Unrestricted,
}

/// Stands for every host that the environment allows, where a source says what its sessions reach.
pub const ALL_HOSTS: &str = "*";

impl Network {
    pub fn reaches(&self, host: &str) -> bool {
        match self {
            Network::None => false,
            Network::Limited(hosts) => hosts.iter().any(|allowed| fits(host, allowed)),
            Network::Unrestricted => true,
        }
    }
}

/// What a session reaches. `allowed` are the hosts that its source names, where something from outside
/// is in it: then an environment that names no hosts opens none, and what either names is reached.
pub fn network(environment: Network, allowed: Option<&[String]>) -> Network {
    match (environment, allowed) {
        (Network::Unrestricted, Some(hosts)) if !hosts.iter().any(|host| host == ALL_HOSTS) => {
            if hosts.is_empty() {
                Network::None
            } else {
                Network::Limited(hosts.to_vec())
            }
        }
        (environment, _) => environment,
    }
}

/// The hosts that two lists both allow, as a list of that kind.
pub fn common(hosts: &[String], others: &[String]) -> Vec<String> {
    let within = |host: &String, list: &[String]| {
        list.iter().any(|allowed| {
            host.eq_ignore_ascii_case(allowed)
                || allowed.strip_prefix("*.").is_some_and(|domain| is_below(host, domain))
        })
    };
    let mut common: Vec<String> = hosts.iter().filter(|it| within(it, others)).cloned().collect();
    let more = others.iter().filter(|it| within(it, hosts) && !common.contains(it));
    let more: Vec<String> = more.cloned().collect();
    common.extend(more);
    common
}

/// Whether a host is the one that is allowed, or below it where that begins with `*.`.
pub fn fits(host: &str, allowed: &str) -> bool {
    match allowed.strip_prefix("*.") {
        None => host.eq_ignore_ascii_case(allowed),
        Some(domain) => is_below(host, domain),
    }
}

/// Whether a host is a domain or one of its subdomains, as the domain lists of tools mean it.
pub fn is_of(host: &str, domain: &str) -> bool {
    host.eq_ignore_ascii_case(domain) || is_below(host, domain)
}

fn is_below(host: &str, domain: &str) -> bool {
    let n = host.len().saturating_sub(domain.len());
    n > 1
        && host.is_char_boundary(n)
        && host[n..].eq_ignore_ascii_case(domain)
        && host.as_bytes()[n - 1] == b'.'
}

/// Whether a text can be the name of a host, or `*.` and the name of a domain.
pub fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_byte);
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Names at the top of a project that other programs execute or take orders from: an agent that writes
/// them runs code outside its sandbox when a person, or continuous integration, next works there.
pub const EXECUTED: [&str; 8] =
    [".husky", ".githooks", ".github", ".gitlab-ci.yml", ".circleci", ".envrc", ".vscode", ".idea"];

/// Directories that hold such things among others.
const REPOSITORIES: [&str; 3] = [".git", ".hg", ".svn"];

/// The guarded name in a path, if there is one. Case is ignored: some file systems do so too.
pub fn guarded(path: &Path) -> Option<&'static str> {
    path.components().find_map(|component| match component {
        Component::Normal(name) => EXECUTED
            .into_iter()
            .chain(REPOSITORIES)
            .find(|guarded| name.eq_ignore_ascii_case(guarded)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn hosts_are_compared_by_whole_labels() {
        let network = Network::Limited(hosts(&["a.example", "*.b.example"]));
        for host in ["a.example", "A.Example", "x.b.example", "x.y.b.example"] {
            assert!(network.reaches(host), "{host}");
        }
        for host in ["x.a.example", "b.example", "xb.example", "evil-a.example", "", ".b.example"] {
            assert!(!network.reaches(host), "{host}");
        }
        assert!(is_of("a.example", "a.example") && is_of("x.a.example", "A.example"));
        assert!(!is_of("xa.example", "a.example") && !is_of("example", "a.example"));
        for host in ["a.example", "*.a.example", "localhost", "a_b.c-d"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "*", "*.", "a..b", "https://a", "a/b", "a:1", "a.*.b", "[::1]"] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn a_session_with_an_origin_reaches_only_what_is_named() {
        let of =
            |environment: Network, allowed: &[&str]| network(environment, Some(&hosts(allowed)));
        assert_eq!(network(Network::Unrestricted, None), Network::Unrestricted);
        assert_eq!(of(Network::Unrestricted, &[]), Network::None);
        assert_eq!(of(Network::Unrestricted, &["*"]), Network::Unrestricted);
        assert_eq!(of(Network::None, &["*"]), Network::None);
        assert_eq!(of(Network::Unrestricted, &["a.b"]), Network::Limited(hosts(&["a.b"])));
        let limited = || Network::Limited(hosts(&["a.b", "*.c.d"]));
        assert_eq!(of(limited(), &[]), limited());
        assert_eq!(of(limited(), &["e.f"]), limited());
    }

    #[test]
    fn what_others_execute_is_guarded_wherever_it_stands() {
        for path in [
            ".git/hooks/pre-commit",
            "a/b/.git",
            ".GIT/config",
            ".envrc",
            "x/.vscode/y",
            ".github/workflows/ci.yml",
        ] {
            assert!(guarded(Path::new(path)).is_some(), "{path}");
        }
        for path in ["src/git/hooks", ".gitignore", "github/workflows", "git", ""] {
            assert_eq!(guarded(Path::new(path)), None, "{path}");
        }
    }
}
