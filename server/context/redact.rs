//! What must not go from one file into another: keys, tokens, passwords. A suggestion repeats what the model has seen.
//! It knows nothing of where a text comes from.
//!
//! Known shapes only (those that the scanners of code hosts look for first), and strings that are given to a name which says
//! that they are secret. It errs on the side of taking too much out: a snippet loses little by it.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// What stands in the place of a secret.
pub const REDACTED: &str = "REDACTED";

/// A file with this in it is not used at all.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

static SECRETS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        // Tokens that say what they are: AWS, GitHub, GitLab, Slack, Stripe and OpenAI, Google, npm, JSON Web Tokens.
        r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}",
        r"|xox[abeoprs]-[\w-]{10,}|[sr]k[-_](?:live[-_]|test[-_]|proj-|ant-)?[\w-]{20,}|AIza[\w-]{35}",
        r"|npm_[A-Za-z0-9]{36}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{5,})",
        // user:password in an address.
        r"|(?P<before_at>://[^\s/:@]+:)[^\s/@]{3,}@",
        // A string that is given to something whose name says that it is secret.
        r#"|(?i)(?P<before>(?:passw(?:or)?d|passwd|secret|api_?key|access_?key|private_?key|auth_?token|access_?token|credentials?)\w*["']?\s*(?::\s*[\w&'<>\[\]]+\s*)?(?:=>?|:=|:)\s*[bru]?["'`])[^"'`\s]{6,}"#,
    ))
    .ok()
});

/// The text without its secrets; `None` where it is one.
pub fn redact(text: &str) -> Option<Cow<'_, str>> {
    // Without a pattern nothing passes; a test sees to it that there is one.
    let secrets = SECRETS.as_ref().filter(|_| !text.contains(PRIVATE_KEY))?;
    Some(secrets.replace_all(text, |found: &regex::Captures<'_>| {
        let kept = |name| found.name(name).map(|it| it.as_str());
        match (kept("before"), kept("before_at")) {
            (Some(before), _) => format!("{before}{REDACTED}"),
            (_, Some(before)) => format!("{before}{REDACTED}@"),
            _ => REDACTED.to_owned(),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_pass() {
        let aws = format!("key = {}{}", "AKIA", "ABCDEFGHIJKLMNOP");
        for (text, left) in [
            (aws.as_str(), "key = REDACTED"),
            ("PASSWORD = \"hunter2hunter\"", "PASSWORD = \"REDACTED\""),
            ("  \"api_key\": 'abcdefghij',", "  \"api_key\": 'REDACTED',"),
            ("const apiKey: string = `abcdefghij`;", "const apiKey: string = `REDACTED`;"),
            ("let SECRET_TOKEN: &str = \"abcdefghij\";", "let SECRET_TOKEN: &str = \"REDACTED\";"),
            ("url = 'postgres://user:pass@host/db'", "url = 'postgres://user:REDACTED@host/db'"),
            ("{ client_secret => 'abcdefghij' }", "{ client_secret => 'REDACTED' }"),
        ] {
            assert_eq!(redact(text).as_deref(), Some(left));
        }
        assert_eq!(redact(&format!("-----BEGIN RSA {PRIVATE_KEY}\nMII")), None);
    }

    #[test]
    fn code_passes_as_it_is() {
        for text in [
            "password = os.environ[\"PASSWORD\"]",
            "if secret == other_secret:",
            "def set_password(self, password: str) -> None:",
            "https://example.org/path",
            "const token = lexer.next();",
            "api_key: str | None = None",
            "x = \"key\"",
        ] {
            assert_eq!(redact(text).as_deref(), Some(text));
        }
    }
}
