//! Decides which addresses a download may use, and which of them receive the user's token. Opens no connections.

use url::{Host, Url};

use super::SourceError;

/// The hub's own address, used unless `HF_ENDPOINT` names another.
const DEFAULT_HUB_URL: &str = "https://huggingface.co";

/// The hub's address: the only origin (scheme, host and port) that receives the user's token.
#[derive(Debug, Clone)]
pub(super) struct HubEndpoint(Url);

impl HubEndpoint {
    /// Parses the address in `HF_ENDPOINT`; `None` or a blank text is the hub's own address.
    ///
    /// Error messages never contain the address, because it may contain a password.
    pub(super) fn parse(text: Option<&str>) -> Result<HubEndpoint, SourceError> {
        let text = text.map(str::trim).filter(|text| !text.is_empty()).unwrap_or(DEFAULT_HUB_URL);
        let refused = |why: &str| SourceError::Disabled(format!("HF_ENDPOINT {why}"));
        let url =
            Url::parse(text).map_err(|_| refused("is not an address such as https://huggingface.co"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(refused("is not an address such as https://huggingface.co"));
        }
        if has_credentials(&url) {
            return Err(refused("contains a name or a password; put a token into HF_TOKEN instead"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused("has a part after `?` or `#`; remove it"));
        }
        if url.scheme() == "http" && !is_local_address(&url) {
            return Err(refused(
                "is a plain http address, which anyone on the network can read and change: use https \
                 (http is allowed for this machine only)",
            ));
        }
        Ok(HubEndpoint(url))
    }

    /// The address of a file in a repository (`owner/name`) at a revision.
    pub(super) fn file_url(&self, repository: &str, revision: &str, file: &str) -> Result<Url, SourceError> {
        let mut url = self.0.clone();
        let mut path = url.path_segments_mut().map_err(|()| {
            SourceError::Disabled("HF_ENDPOINT is not an address such as https://huggingface.co".into())
        })?;
        path.pop_if_empty()
            .extend(repository.split('/'))
            .extend(["resolve", revision])
            .extend(file.split('/'));
        drop(path);
        Ok(url)
    }

    /// Whether requests to `url` carry the token: the same scheme, host and port.
    pub(super) fn is_same_origin(&self, url: &Url) -> bool {
        self.0.origin() == url.origin()
    }
}

/// The target of a redirect from `from`.
///
/// Refused: from an encrypted to an unencrypted address, from elsewhere to this machine, to an address with a password.
pub(super) fn resolve_redirect(from: &Url, location: Option<&str>) -> Result<Url, SourceError> {
    let refused = |why: &str| SourceError::InvalidData(format!("{} redirects {why}", display_origin(from)));
    let location = location.ok_or_else(|| refused("without a location"))?;
    let mut to = from.join(location).map_err(|_| refused("to an invalid address"))?;
    to.set_fragment(None);
    if has_credentials(&to) {
        return Err(refused("to an address with a name or a password, which is not followed"));
    }
    match to.scheme() {
        "https" if is_local_address(&to) && !is_local_address(from) => {
            Err(refused("to this machine itself, which is not followed"))
        }
        "https" => Ok(to),
        "http" if from.scheme() == "http" && is_local_address(&to) => Ok(to),
        "http" => {
            Err(refused(&format!("to {}, which is not encrypted and not followed", display_origin(&to))))
        }
        _ => Err(refused("to something that is not a web address")),
    }
}

/// Whether the address is this machine itself: 127.0.0.0/8, `::1` or `localhost`.
pub(super) fn is_local_address(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// An address for messages: without path and query, which may be signed.
pub(super) fn display_origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

#[cfg(test)]
mod tests {

    use super::*;

    fn parse_url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn endpoint_must_be_https_or_loopback() {
        for good in [
            "https://huggingface.co",
            "https://hub.example/a/path/",
            "HTTPS://hub.example:8443",
            "http://localhost:8080",
            "http://LOCALHOST",
            "http://127.0.0.1:1",
            "http://127.8.9.10",
            "http://127.1",
            "http://[::1]:80/x",
            "",
            "  ",
        ] {
            assert!(HubEndpoint::parse(Some(good)).is_ok(), "{good}");
        }
        for bad in [
            "http://huggingface.co",
            "http://hub.example:443",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "http://notlocalhost",
            "http://localhost@hub.example",
            "http://0.0.0.0",
            "http://10.0.0.1",
            "http://[::2]",
            "http://128.0.0.1",
            "huggingface.co",
            "//huggingface.co",
            "ftp://hub.example",
            "file:///etc/passwd",
            "https://",
            "https://secret@hub.example",
            "https://user:secret@hub.example",
            "https://:secret@hub.example",
            "https://hub.example/?token=secret",
            "https://hub.example/#secret",
            "localhost:8080",
        ] {
            let problem = HubEndpoint::parse(Some(bad)).unwrap_err().to_string();
            assert!(problem.starts_with("HF_ENDPOINT ") && !problem.contains("secret"), "{bad}: {problem}");
        }
    }

    #[test]
    fn file_url_keeps_mirror_path_and_escapes() {
        let file = |endpoint: &str, file: &str| {
            HubEndpoint::parse(Some(endpoint))
                .unwrap()
                .file_url("owner/name", "c0ffee", file)
                .unwrap()
                .to_string()
        };
        assert_eq!(
            file("https://huggingface.co", "a.gguf"),
            "https://huggingface.co/owner/name/resolve/c0ffee/a.gguf"
        );
        assert_eq!(
            file("https://mirror/api/hub/", "a b?.gguf"),
            "https://mirror/api/hub/owner/name/resolve/c0ffee/a%20b%3F.gguf"
        );
    }

    #[test]
    fn only_same_origin_is_trusted() {
        let hub = HubEndpoint::parse(Some("https://hub.example")).unwrap();
        for same in ["https://hub.example/x", "https://hub.example:443", "https://HUB.example/?a"] {
            assert!(hub.is_same_origin(&parse_url(same)), "{same}");
        }
        for other in [
            "https://hub.example:444",
            "http://hub.example",
            "http://hub.example:443",
            "https://cdn.hub.example",
            "https://hub.example.evil.example",
            "https://hub.example.",
            "https://example",
            "https://127.0.0.1",
        ] {
            assert!(!hub.is_same_origin(&parse_url(other)), "{other}");
        }
        let here = HubEndpoint::parse(Some("http://127.0.0.1:8080")).unwrap();
        for other in ["http://127.0.0.1:8081", "http://127.0.0.2:8080", "http://localhost:8080"] {
            assert!(!here.is_same_origin(&parse_url(other)), "{other}");
        }
    }

    #[test]
    fn redirects_stay_encrypted_and_off_loopback() {
        let to = |from: &str, location: &str| {
            resolve_redirect(&parse_url(from), Some(location))
                .map(|url| url.to_string())
                .map_err(|e| e.to_string())
        };
        let far = "https://hub.example/a/b";
        assert_eq!(to(far, "/c?x=1").unwrap(), "https://hub.example/c?x=1");
        assert_eq!(to(far, "https://cdn.example/c#top").unwrap(), "https://cdn.example/c");
        assert_eq!(to(far, "//cdn.example/c").unwrap(), "https://cdn.example/c");
        for bad in [
            "http://hub.example/a",
            "HTTP://hub.example/a",
            "http://127.0.0.1/a",
            "http://localhost/a",
            "https://127.0.0.1/a",
            "https://localhost/a",
            "https://[::1]/a",
            "https://u:p@hub.example/",
            "https://u@hub.example/",
            "file:///etc/passwd",
            "data:,x",
            "ftp://hub.example/x",
            "http://",
            "https://:99999/",
        ] {
            assert!(to(far, bad).is_err(), "{bad}");
        }
        let here = "http://127.0.0.1:8080/a";
        assert_eq!(to(here, "/b").unwrap(), "http://127.0.0.1:8080/b");
        assert_eq!(to(here, "http://localhost:1/b").unwrap(), "http://localhost:1/b");
        assert_eq!(to(here, "https://cdn.example/b").unwrap(), "https://cdn.example/b");
        assert!(to(here, "http://cdn.example/b").is_err());
        assert!(resolve_redirect(&parse_url(far), None).is_err());
        // Signatures in addresses do not appear in messages.
        let problem = to("https://cdn.example/f?signature=secret", "http://x.example/?y=secret").unwrap_err();
        assert!(!problem.contains("secret") && problem.contains("http://x.example"), "{problem}");
    }
}
