//! What a program asks of the proxy: the head of one request, read strictly.
//!
//! Invariant: one connection is one request. What several programs could read differently is refused,
//! so that the host that is checked is the host that is asked. Left out: the body.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 32 << 10;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// In lower case, without a dot at its end; an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) wanted: Wanted,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Bytes in both directions.
    Tunnel,
    /// This head is sent on, and so many bytes after it.
    Forward { head: Vec<u8>, body_bytes: u64 },
}

/// Headers that are between the program and the proxy, or that the proxy says itself.
const OWN: [&str; 9] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// The request, and what came behind its head already.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<(Request, Vec<u8>), String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            let head = std::str::from_utf8(&bytes).map_err(|_| "the head is no text")?;
            return Ok((parse(head)?, rest));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err("the head is too long".to_owned());
        }
        let n = stream.read_buf(&mut bytes).await.map_err(|error| error.to_string())?;
        if n == 0 {
            return Err("the head has no end".to_owned());
        }
    }
}

fn parse(head: &str) -> Result<Request, String> {
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("this is no request of HTTP/1".to_owned());
    };
    if method == "CONNECT" {
        let (host, port) = authority(target, None)?;
        return Ok(Request { host, port, wanted: Wanted::Tunnel });
    }
    let is_token = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    let Some(rest) = target.strip_prefix("http://").filter(|_| is_token) else {
        return Err("ask for a whole URL that begins with http://, or CONNECT".to_owned());
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, port) = authority(&rest[..end], Some(80))?;
    let path = if rest[end..].starts_with('/') { "" } else { "/" };
    let mut forwarded =
        format!("{method} {path}{} HTTP/1.1\r\nhost: {}\r\n", &rest[end..], &rest[..end]);
    let mut body_bytes = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a header has no colon")?;
        let name = name.to_ascii_lowercase();
        let is_odd =
            |byte: u8| !(byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte));
        if name.is_empty() || name.bytes().any(is_odd) || value.contains(['\r', '\n', '\0']) {
            return Err("a header is not a plain one".to_owned());
        }
        match name.as_str() {
            "transfer-encoding" => {
                return Err("say how long the body is, with content-length".to_owned());
            }
            "content-length" => {
                let digits =
                    Some(value.trim()).filter(|it| it.bytes().all(|it| it.is_ascii_digit()));
                let length = digits.and_then(|it| it.parse::<u64>().ok());
                let length = length.ok_or("content-length is wrong")?;
                if body_bytes.replace(length).is_some_and(|before| before != length) {
                    return Err("content-length is there twice".to_owned());
                }
                forwarded.push_str(&format!("content-length: {length}\r\n"));
            }
            name if OWN.contains(&name) => {}
            name => forwarded.push_str(&format!("{name}:{value}\r\n")),
        }
    }
    forwarded.push_str("connection: close\r\n\r\n");
    let wanted =
        Wanted::Forward { head: forwarded.into_bytes(), body_bytes: body_bytes.unwrap_or(0) };
    Ok(Request { host, port, wanted })
}

fn authority(text: &str, port: Option<u16>) -> Result<(String, u16), String> {
    let wrong = || "the host is not a plain name with a port".to_owned();
    let (host, given) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(wrong)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            (host, after.strip_prefix(':').or((!after.is_empty()).then_some("?")))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match given {
        Some(given) if given.bytes().all(|byte| byte.is_ascii_digit()) => given.parse().ok(),
        Some(_) => None,
        None => port,
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_named = text.starts_with('[') || host.bytes().all(is_plain);
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match port {
        Some(port) if is_named && !host.is_empty() && host.len() < 254 => Ok((host, port)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_sent_on_without_what_is_between_program_and_proxy() {
        let tunnel = parse("CONNECT Example.COM.:443 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let expected =
            Request { host: "example.com".to_owned(), port: 443, wanted: Wanted::Tunnel };
        assert_eq!(tunnel, expected);
        let request = "POST http://example.com:8080?a=b HTTP/1.1\r\nHost: other.example\r\n\
            Proxy-Authorization: x\r\nConnection: keep-alive\r\nX-A: 1\r\nContent-Length: 3\r\n\r\n";
        let parsed = parse(request).unwrap();
        let Wanted::Forward { head, body_bytes } = parsed.wanted else { panic!("a tunnel") };
        assert_eq!((parsed.host.as_str(), parsed.port, body_bytes), ("example.com", 8080, 3));
        assert_eq!(
            String::from_utf8(head).unwrap(),
            "POST /?a=b HTTP/1.1\r\nhost: example.com:8080\r\nx-a: 1\r\ncontent-length: 3\r\n\
             connection: close\r\n\r\n"
        );
        let address = parse("CONNECT [2600:9000::1]:443 HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(address.host, "2600:9000::1");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET https://example.com/ HTTP/1.1\r\n\r\n",
            "GET http://a@example.com/ HTTP/1.1\r\n\r\n",
            "GET http://example.com\\@evil/ HTTP/1.1\r\n\r\n",
            "GET http://example.com#@evil/ HTTP/1.1\r\n\r\n",
            "GET http:///x HTTP/1.1\r\n\r\n",
            "GET http://[::1/ HTTP/1.1\r\n\r\n",
            "GET http://[::1]x/ HTTP/1.1\r\n\r\n",
            "GET http://example.com:/ HTTP/1.1\r\n\r\n",
            "GET http://example.com:+80/ HTTP/1.1\r\n\r\n",
            "GET http://example.com/ HTTP/1.1 \r\n\r\n",
            "GET http://example.com/ HTTP/2\r\n\r\n",
            "G\tT http://example.com/ HTTP/1.1\r\n\r\n",
            "GET http://example.com/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET http://example.com/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "GET http://example.com/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "GET http://example.com/ HTTP/1.1\r\nA b: 1\r\n\r\n",
            "GET http://example.com/ HTTP/1.1\r\n folded\r\n\r\n",
            "GET http://example.com/ HTTP/1.1\r\na: 1\nhost: evil\r\n\r\n",
            "CONNECT example.com HTTP/1.1\r\n\r\n",
            "CONNECT example.com:443:80 HTTP/1.1\r\n\r\n",
            "CONNECT example.com:99999 HTTP/1.1\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert!(parse(head).is_err(), "{head:?}");
        }
    }
}
