//! Where something may be fetched from: hosts and paths, as data.
//!
//! A request may name a URL, and what is behind it decides who is let in. Invariant: only names that
//! were written down beforehand are fetched from, by HTTPS, on its own port. Left out: fetching, and
//! what addresses a name has; that is `fetch`'s.

use serde::{Deserialize, Serialize};

use super::Problem;

/// What a URL must look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Names of hosts; a label that is `*` stands for one of letters, digits and `-`.
    pub hosts: Vec<String>,
    /// The path, in which a `*` stands for letters, digits, `-`, `_` and `.`.
    pub path: String,
    /// Whether the URL has a query.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub query: bool,
}

const HOSTS_MAX: usize = 8;

impl Origin {
    pub(super) fn check(&self) -> Result<(), Problem> {
        // The last two labels are somebody's own: a name cannot be open at its end.
        let is_name = |host: &String| {
            let labels: Vec<&str> = host.split('.').collect();
            let is_label = |label: &&str| !label.is_empty() && label.bytes().all(is_label_byte);
            let n_fixed = labels.iter().rev().take_while(|label| is_label(label)).count();
            let is_known = |label: &&str| *label == "*" || is_label(label);
            n_fixed >= 2 && labels.iter().all(is_known)
        };
        if self.hosts.is_empty() || self.hosts.len() > HOSTS_MAX || !self.hosts.iter().all(is_name)
        {
            let message = format!("must be 1 to {HOSTS_MAX} names of hosts with two fixed labels");
            return Err(Problem::new("hosts", message));
        }
        if !self.path.starts_with('/') || self.path.matches('*').count() > 1 {
            return Err(Problem::new("path", "must begin with `/` and have one `*` at most"));
        }
        Ok(())
    }

    /// Whether a host, as it stands in a URL, is one of these.
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|known| {
            let (known, given) = (known.split('.'), host.split('.'));
            known.clone().count() == given.clone().count()
                && known.zip(given).all(|(known, given)| match known {
                    "*" => given.len() >= 2 && given.bytes().all(is_label_byte),
                    known => known == given,
                })
        })
    }

    pub fn has_path(&self, path: &str) -> bool {
        let is_file = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match self.path.split_once('*') {
            None => path == self.path,
            Some((before, after)) => {
                let rest = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_file))
            }
        }
    }
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_down_fits() {
        let sns = Origin {
            hosts: vec!["sns.*.amazonaws.com".to_owned(), "sns.*.amazonaws.com.cn".to_owned()],
            path: "/*.pem".to_owned(),
            query: false,
        };
        assert_eq!(sns.check(), Ok(()));
        for host in ["sns.us-east-1.amazonaws.com", "sns.cn-north-1.amazonaws.com.cn"] {
            assert!(sns.has_host(host), "{host}");
        }
        for host in [
            "sns.amazonaws.com",
            "sns..amazonaws.com",
            "sns.a.b.amazonaws.com",
            "sns.us-east-1.amazonaws.com.evil.example",
            "evil.example",
            "s3.us-east-1.amazonaws.com",
            "sns.us_east.amazonaws.com",
            "127.0.0.1",
            "",
        ] {
            assert!(!sns.has_host(host), "{host}");
        }
        assert!(sns.has_path("/SimpleNotificationService-7ff5318490ec.pem"));
        for path in ["/.pem/x", "/a/b.pem", "/a.pem/", "/x", "/a%2f.pem", "//a.pem", "/.pem"] {
            assert!(!sns.has_path(path), "{path}");
        }
        for (host, path) in
            [("*", "/"), ("*.com", "/"), ("a.*", "/"), ("A.example", "/"), ("a.example", "x")]
        {
            let open = Origin { hosts: vec![host.to_owned()], path: path.to_owned(), query: false };
            assert!(open.check().is_err(), "{host} {path}");
        }
    }
}
