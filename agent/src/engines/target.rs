//! Where a server is, and what may be asked of it.

use http_body_util::Empty;
use hyper::{
    Request, Uri,
    body::Bytes,
    header::{self, HeaderValue},
};

use super::scrape_error::ScrapeError;

const ACCEPT: &str = "text/plain;version=0.0.4;q=1,text/plain;q=0.9,*/*;q=0.1";
const USER_AGENT: &str = concat!("plimsoll-agent/", env!("CARGO_PKG_VERSION"));

/// Where a server is.
#[derive(Debug)]
pub(super) struct Target {
    /// A name or an address, IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// As in the URL: host with its port where one was given.
    pub(super) authority: String,
    /// The path of the metrics page.
    pub(super) path: String,
}

impl Target {
    /// Takes `http://host[:port]` and the path of the page apart.
    pub(super) fn parse(url: &str, path: &str) -> Result<Self, ScrapeError> {
        let wrong = |reason| ScrapeError::Url { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|_| wrong("it can't be parsed"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong("https is not supported, engines are read over plain http on their node"));
            }
            _ => return Err(wrong("it does not start with http://")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it holds a user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        if !path.starts_with('/') || path.parse::<Uri>().is_err() {
            return Err(wrong("its metrics path is no path from '/'"));
        }
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.as_str().to_owned(),
            path: path.to_owned(),
        })
    }

    /// A request for a path; with a token that no other host sees, since no other host is ever asked.
    pub(super) fn request(
        &self,
        path: &str,
        token: Option<&HeaderValue>,
    ) -> Result<Request<Empty<Bytes>>, ScrapeError> {
        let mut request = Request::get(path)
            .header(header::HOST, self.authority.as_str())
            .header(header::ACCEPT, ACCEPT)
            .header(header::USER_AGENT, USER_AGENT);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        request
            .body(Empty::new())
            .map_err(|_| ScrapeError::Url { url: path.to_owned(), reason: "it can't be asked for" })
    }

    /// The path that a redirect from `path` leads to, if it stays on this host.
    pub(super) fn resolve(&self, path: &str, to: &str) -> Option<String> {
        if to.is_empty() || to.starts_with("//") {
            return None;
        }
        if to.starts_with('/') {
            return Some(to.to_owned());
        }
        if !to.contains("://") {
            let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
            return Some(format!("{folder}{to}"));
        }
        let uri: Uri = to.parse().ok()?;
        let same_host = uri.scheme_str() == Some("http")
            && uri.host().is_some_and(|host| host.trim_start_matches('[').trim_end_matches(']') == self.host)
            && uri.port_u16().unwrap_or(80) == self.port;
        same_host.then(|| uri.path_and_query().map_or("/", |path| path.as_str()).to_owned())
    }

    /// What a failed request tells: a server that went away, or one that does not speak HTTP.
    pub(super) fn failed(&self, error: &hyper::Error) -> ScrapeError {
        let (address, reason) = (self.authority.clone(), error.to_string());
        // Everything that the parser can say about what came is "parse"; the rest is the connection.
        if error.is_parse() {
            ScrapeError::Broken { address, reason }
        } else {
            ScrapeError::Closed { address, reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        let of = |url: &str| Target::parse(url, "/metrics").map(|target| (target.host, target.port));
        assert_eq!(of("http://127.0.0.1:8000"), Ok(("127.0.0.1".to_owned(), 8000)));
        assert_eq!(of("http://[::1]:8000/"), Ok(("::1".to_owned(), 8000)));
        assert_eq!(of("http://engine"), Ok(("engine".to_owned(), 80)));
        for bad in ["https://engine:8000", "engine:8000", "/metrics", "", "http://", "http://a@b", "ftp://x"]
        {
            assert!(matches!(of(bad), Err(ScrapeError::Url { .. })), "{bad:?}");
        }
        assert!(Target::parse("http://engine", "metrics").is_err());
        let https = of("https://engine").unwrap_err().to_string();
        assert!(https.contains("https is not supported"), "{https}");
    }

    #[test]
    fn redirects_stay_on_their_host() {
        let target = Target::parse("http://127.0.0.1:8000", "/metrics").unwrap();
        let resolve = |to: &str| target.resolve("/a/metrics", to);
        assert_eq!(resolve("/metrics/").as_deref(), Some("/metrics/"));
        assert_eq!(resolve("http://127.0.0.1:8000/metrics/?x=1").as_deref(), Some("/metrics/?x=1"));
        assert_eq!(resolve("metrics/").as_deref(), Some("/a/metrics/"));
        for foreign in
            ["http://127.0.0.1:8001/metrics", "https://127.0.0.1:8000/", "http://evil/", "//evil/x", ""]
        {
            assert_eq!(resolve(foreign), None, "{foreign:?}");
        }
    }
}
