//! The words that names and values are judged by, and the words that a name consists of.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

/// Words for secrets and for descriptions of them: names, not values.
#[rustfmt::skip]
const SECRET_NOUNS: &[&str] = &[
    "password", "passwords", "passwd", "passwort", "passphrase", "pass", "pwd", "secret", "secrets", "token",
    "tokens", "key", "keys", "credential", "credentials", "creds", "auth", "authorization", "authentication",
    "cookie", "apikey", "kennwort", "senha", "clave", "contrasena", "contraseña", "mdp", "haslo",
    "wachtwoord", "parola", "heslo", "sifre", "csrfmiddlewaretoken", "string", "str", "text", "required",
    "optional", "nullable", "boolean", "bool", "number", "varchar", "char", "hidden", "hashed", "encrypted",
    "confirmed", "sometimes", "min", "max", "true", "false", "none", "null", "nil", "undefined", "input",
    "field", "form", "label", "bearer", "basic", "digest", "include", "omit", "origin", "same", "email",
    "username", "redacted", "masked", "prompt", "empty", "unset", "missing", "invalid", "unknown",
];
/// Words that occur with these in a name.
#[rustfmt::skip]
const NAME_MODIFIERS: &[&str] = &[
    "user", "db", "database", "access", "refresh", "client", "api", "id", "name", "header", "csrf", "xsrf",
    "x", "new", "old", "current", "confirm", "confirmation", "private", "public", "session", "oauth", "jwt",
    "login", "admin", "account", "aws", "github", "value", "type", "file", "path", "url", "app", "service",
    "master", "signing", "encryption", "shared", "env", "config", "settings", "and", "or", "is", "has", "the",
    "reset", "hash", "smtp", "mail", "redis", "postgres", "mysql", "proxy", "http", "https", "server",
    "provider", "manager", "store", "storage", "get", "set", "with", "from", "to", "for", "mode", "level",
    "error", "grant", "code", "uri", "ref", "in", "at", "on", "of", "by", "not", "length", "strength",
    "meter", "icon", "visible", "toggle", "show", "hide", "change", "forgot", "forgotten", "update", "create",
    "delete", "verify",
];
/// Words of a placeholder value.
#[rustfmt::skip]
const PLACEHOLDER_WORDS: &[&str] = &[
    "your", "yours", "placeholder", "example", "changeme", "change", "replace", "replaceme", "insert", "todo",
    "fixme", "dummy", "fake", "here", "redacted", "removed", "fill", "enter", "put", "paste", "goes", "xxx",
    "xxxx", "foo", "bar", "baz", "lorem",
];
/// Words that mark a sentence.
#[rustfmt::skip]
const SENTENCE_WORDS: &[&str] = &[
    "the", "a", "an", "is", "are", "was", "your", "you", "enter", "please", "must", "not", "for", "of", "to",
    "with", "from", "and", "or", "no", "be", "at", "least", "this", "that", "if", "when", "has", "have",
    "cannot", "can", "de", "la", "le", "el", "der", "die", "das", "ist", "do", "da", "il", "du", "en",
    "votre", "su", "tu", "ihr", "dein", "bitte", "new", "current", "invalid", "wrong", "incorrect", "missing",
    "required", "forgot", "reset", "confirm", "show", "hide", "change", "in", "on",
];
/// Words that contain digits.
#[rustfmt::skip]
const TECHNICAL_WORDS: &[&str] = &[
    "sha1", "sha224", "sha256", "sha384", "sha512", "md5", "base64", "base32", "base16", "base58", "utf8",
    "utf16", "utf32", "oauth1", "oauth2", "http2", "http3", "ipv4", "ipv6", "x509", "rs256", "hs256", "es256",
    "ps256", "hs384", "hs512", "rs512", "ed25519", "x25519", "curve25519", "secp256k1", "secp256r1", "p256",
    "aes128", "aes192", "aes256", "k8s", "i18n", "l10n", "a11y", "x86", "arm64", "amd64", "x64", "win32",
    "win64", "bcrypt", "argon2id", "argon2i", "pbkdf2", "rc4", "chacha20", "poly1305", "rfc", "iso8601",
    "rfc3339", "rfc2822", "pkcs1", "pkcs8", "pkcs12", "utf8mb4", "latin1", "es5", "es6", "es2015",
];
/// The last word of a password's name.
#[rustfmt::skip]
const PASSWORD_WORDS: &[&str] = &[
    "password", "passwords", "passwd", "passwort", "passphrase", "passphrases", "passcode", "pwd", "pw",
    "pswd", "psw", "passw", "kennwort", "losungswort", "senha", "senhas", "contrasena", "contraseña", "clave",
    "mdp", "motdepasse", "haslo", "wachtwoord", "parola", "heslo", "sifre", "requirepass", "masterauth",
    "userpass", "dbpass", "密码", "密碼", "口令", "パスワード", "пароль", "비밀번호", "mnemonic", "mnemonics",
];
/// Words that make a key a secret.
#[rustfmt::skip]
const SECRET_KEY_WORDS: &[&str] = &[
    "api", "apis", "secret", "private", "access", "auth", "encryption", "encrypt", "decryption", "decrypt",
    "signing", "sign", "signature", "hmac", "jwt", "aes", "crypto", "cipher", "shared", "client", "consumer",
    "deploy", "subscription", "priv", "psk", "preshared", "wpa", "webhook", "integration", "ssh", "rsa",
    "gpg", "pgp", "tls", "ssl", "bearer", "oauth",
];
/// Words that may do so: the value has to look like a secret.
#[rustfmt::skip]
const POSSIBLE_KEY_WORDS: &[&str] = &[
    "account", "storage", "master", "session", "service", "app", "application", "host", "license", "licence",
    "server", "root", "admin", "user", "function", "functions", "cookie", "nonce", "in", "security", "secure",
    "write", "read", "team", "project", "ingest", "ingestion", "instrumentation", "wallet", "stripe",
    "openai", "anthropic", "aws", "azure", "gcp", "google", "github", "twilio", "sendgrid", "mailgun",
    "datadog", "dd", "sentry", "algolia", "maps", "unlock", "symmetric",
];
/// Words that make a key public.
#[rustfmt::skip]
const PUBLIC_KEY_WORDS: &[&str] = &["public", "pub", "publishable", "foreign", "primary", "sort", "partition", "cache", "hot"];
/// Words that make a token a credential and not a token of a language.
#[rustfmt::skip]
const SECRET_TOKEN_WORDS: &[&str] = &[
    "auth", "authentication", "authorization", "access", "refresh", "api", "bearer", "session", "oauth",
    "oauth2", "bot", "github", "gh", "gitlab", "slack", "discord", "telegram", "hf", "hugging", "huggingface",
    "npm", "pypi", "aws", "azure", "gcp", "google", "client", "user", "admin", "deploy", "webhook", "jwt",
    "personal", "private", "vault", "root", "upload", "publish", "ci", "sonar", "codecov", "openai", "secret",
    "service", "security", "login", "csrf", "xsrf", "verify", "verification", "reset", "device", "push",
    "registry", "influx", "grafana", "heroku", "cloudflare", "cf", "do", "digitalocean", "stripe", "twilio",
    "notion", "linear", "jira", "confluence", "atlassian", "circleci", "travis", "snyk", "sentry", "datadog",
    "mapbox", "figma", "npmrc", "runner", "kube", "kubernetes", "k8s", "argocd", "consul", "nomad",
    "terraform", "tfe", "ngrok", "fly", "vercel", "netlify", "supabase", "railway", "render",
];
/// Owners of passwords: `user_pass`, but not `render_pass`.
#[rustfmt::skip]
const PASSWORD_OWNERS: &[&str] = &[
    "user", "db", "database", "smtp", "mail", "email", "mysql", "pg", "postgres", "sql", "redis", "mongo",
    "rabbitmq", "ftp", "sftp", "ssh", "ldap", "admin", "root", "auth", "basic", "login", "proxy", "http",
    "imap", "wifi", "wpa", "master", "my", "new", "old", "key", "store", "keystore", "truststore", "account",
    "service", "app", "api", "mqtt", "amqp", "vnc", "sudo", "jdbc", "oracle", "host", "remote", "server",
    "client", "test", "default",
];
/// Words that may follow the decisive word.
#[rustfmt::skip]
const TRAILING_WORDS: &[&str] = &[
    "prod", "production", "dev", "development", "test", "tests", "testing", "staging", "stage", "live",
    "sandbox", "local", "value", "val", "values", "str", "string", "text", "txt", "plain", "plaintext",
    "cleartext", "clear", "base", "default", "old", "new", "current", "raw", "b64", "base64", "hex",
    "encoded", "main", "backup", "prd", "stg", "qa", "uat", "bytes", "data", "primary", "secondary", "master",
    "real", "env", "var", "literal", "const", "v1", "v2", "v3", "content",
];
/// Words for the hash of a secret.
#[rustfmt::skip]
const HASH_WORDS: &[&str] = &["hash", "hashed", "digest", "salt", "encrypted", "enc", "crypt", "md5", "sha1", "sha256", "sha512"];

/// The lists that a word is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WordKinds(u16);

impl WordKinds {
    pub(super) const SECRET_NOUN: Self = Self(1 << 0);
    pub(super) const NAME_MODIFIER: Self = Self(1 << 1);
    pub(super) const PLACEHOLDER: Self = Self(1 << 2);
    pub(super) const SENTENCE: Self = Self(1 << 3);
    pub(super) const TECHNICAL: Self = Self(1 << 4);
    pub(super) const PASSWORD: Self = Self(1 << 5);
    pub(super) const SECRET_KEY: Self = Self(1 << 6);
    pub(super) const POSSIBLE_KEY: Self = Self(1 << 7);
    pub(super) const PUBLIC_KEY: Self = Self(1 << 8);
    pub(super) const SECRET_TOKEN: Self = Self(1 << 9);
    pub(super) const PASSWORD_OWNER: Self = Self(1 << 10);
    pub(super) const TRAILING: Self = Self(1 << 11);
    pub(super) const HASH: Self = Self(1 << 12);

    /// The lists that contain this word, which is in lower case.
    pub(super) fn of(word: &str) -> Self {
        // No word of the lists is longer, or begins with a digit.
        if word.len() > LONGEST_WORD || word.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            return Self::default();
        }
        WORDS.get(word).copied().unwrap_or_default()
    }

    /// Whether it is in one of these lists.
    pub(super) fn is_any(self, kinds: Self) -> bool {
        self.0 & kinds.0 != 0
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

const LISTS: [(&[&str], WordKinds); 13] = [
    (SECRET_NOUNS, WordKinds::SECRET_NOUN),
    (NAME_MODIFIERS, WordKinds::NAME_MODIFIER),
    (PLACEHOLDER_WORDS, WordKinds::PLACEHOLDER),
    (SENTENCE_WORDS, WordKinds::SENTENCE),
    (TECHNICAL_WORDS, WordKinds::TECHNICAL),
    (PASSWORD_WORDS, WordKinds::PASSWORD),
    (SECRET_KEY_WORDS, WordKinds::SECRET_KEY),
    (POSSIBLE_KEY_WORDS, WordKinds::POSSIBLE_KEY),
    (PUBLIC_KEY_WORDS, WordKinds::PUBLIC_KEY),
    (SECRET_TOKEN_WORDS, WordKinds::SECRET_TOKEN),
    (PASSWORD_OWNERS, WordKinds::PASSWORD_OWNER),
    (TRAILING_WORDS, WordKinds::TRAILING),
    (HASH_WORDS, WordKinds::HASH),
];

/// Maximum bytes of a word in the lists.
const LONGEST_WORD: usize = 24;

/// A hash of a few bytes; the words are our own, so an attacker cannot choose colliding ones.
#[derive(Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

static WORDS: LazyLock<HashMap<&str, WordKinds, BuildHasherDefault<WordHasher>>> = LazyLock::new(|| {
    let mut words = HashMap::<&str, WordKinds, _>::default();
    for (list, kind) in LISTS {
        for word in list {
            let kinds = words.entry(*word).or_default();
            *kinds = kinds.or(kind);
        }
    }
    words
});

/// The technical terms: words that contain digits.
pub(super) fn technical_terms() -> impl Iterator<Item = &'static str> {
    TECHNICAL_WORDS.iter().copied()
}

/// The words of a name, one at a time, in lower case: `AWS_SECRET_ACCESS_KEY`, `clientSecret`, `X-Api-Key`.
pub(super) struct NameWords<'a> {
    rest: &'a str,
    /// The character before the rest.
    before: char,
    word: String,
}

impl<'a> NameWords<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        Self { rest: name, before: ' ', word: String::with_capacity(name.len().min(32)) }
    }

    /// The next word.
    pub(super) fn next_word(&mut self) -> Option<&str> {
        self.word.clear();
        let mut characters = self.rest.char_indices().peekable();
        while let Some((at, c)) = characters.next() {
            let ends = !c.is_alphanumeric()
                || c.is_uppercase() && {
                    let next_is_lower = characters.peek().is_some_and(|(_, next)| next.is_lowercase());
                    self.before.is_lowercase()
                        || self.before.is_numeric()
                        || self.before.is_uppercase() && next_is_lower
                };
            if ends && !self.word.is_empty() {
                self.rest = &self.rest[at..];
                return Some(&self.word);
            }
            if c.is_ascii_alphanumeric() {
                self.word.push(c.to_ascii_lowercase());
            } else if c.is_alphanumeric() {
                self.word.extend(c.to_lowercase());
            }
            self.before = c;
        }
        self.rest = "";
        (!self.word.is_empty()).then_some(self.word.as_str())
    }

    /// Whether `is` holds for one of the words.
    pub(super) fn any(mut self, is: impl Fn(&str) -> bool) -> bool {
        while let Some(word) = self.next_word() {
            if is(word) {
                return true;
            }
        }
        false
    }

    pub(super) fn count(mut self) -> usize {
        let mut count = 0;
        while self.next_word().is_some() {
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_lists_is_found_in_its_list() {
        for (list, kind) in LISTS {
            let lost: Vec<_> = list.iter().filter(|it| !WordKinds::of(it).is_any(kind)).collect();
            assert!(lost.is_empty(), "too long, or beginning with a digit: {lost:?}");
        }
    }

    #[test]
    fn name_is_split_into_words_in_lower_case() {
        let words = |name| {
            let (mut all, mut words) = (Vec::new(), NameWords::new(name));
            while let Some(word) = words.next_word() {
                all.push(word.to_owned());
            }
            all.join(" ")
        };
        assert_eq!(words("AWS_SECRET_ACCESS_KEY"), "aws secret access key");
        assert_eq!(words("clientSecret2Value"), "client secret2 value");
        assert_eq!(words("X-Api-Key"), "x api key");
        assert_eq!(words("HTTPServer"), "http server");
        assert_eq!(words("ΚωδικόςΠρόσβασης"), "κωδικός πρόσβασης");
        assert_eq!(words("--"), "");
    }
}
