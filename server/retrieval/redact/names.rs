//! Classifies names: which names are those of secrets.

use super::values::ValueStrictness;

/// Keywords of names: every name that [`NameClassifier`] knows contains one.
#[rustfmt::skip]
pub(super) const NAME_PARTS: &[&str] = &[
    "pass", "pwd", "secret", "token", "key", "cred", "auth", "mnemonic", "seed", "salt", "cookie", "sess",
    "sid", "pw", "pin", "otp", "jwt", "_pat", "sig", "kennwort", "losung", "senha", "contrase", "clave",
    "mdp", "mot_de", "motde", "haslo", "wachtwoord", "parola", "heslo", "sifre", "密码", "密碼", "口令", "パスワード",
    "пароль", "비밀번호",
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
const PUBLIC_KEY_WORDS: &[&str] =
    &["public", "pub", "publishable", "foreign", "primary", "sort", "partition", "cache", "hot"];

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
const HASH_WORDS: &[&str] =
    &["hash", "hashed", "digest", "salt", "encrypted", "enc", "crypt", "md5", "sha1", "sha256", "sha512"];

/// Classifies names; reuses its buffers.
#[derive(Debug, Default)]
pub(super) struct NameClassifier {
    lower: String,
    ends: Vec<usize>,
}

impl NameClassifier {
    /// How strictly the value of this name must look like a secret; `None` if the name is not a secret's.
    pub(super) fn required_strictness(&mut self, name: &str) -> Option<ValueStrictness> {
        // `config.api.key`: the words before a dot qualify an ambiguous word.
        let own = name.rsplit('.').next().unwrap_or(name);
        let says_little = ["key", "keys", "pass"].iter().any(|it| own.eq_ignore_ascii_case(it));
        split_words(if says_little { name } else { own }, &mut self.lower, &mut self.ends);
        let mut all = [""; 16];
        let mut count = 0;
        let mut start = 0;
        // Only the last words of a very long name count.
        let skipped = self.ends.len().saturating_sub(all.len());
        for (at, &end) in self.ends.iter().enumerate() {
            if at >= skipped {
                all[count] = &self.lower[start..end];
                count += 1;
            }
            start = end;
        }
        strictness_for_words(&all[..count])
    }
}

/// How strictly the value of this name must look like a secret; `None` if the name is not a secret's.
fn strictness_for_words(all: &[&str]) -> Option<ValueStrictness> {
    let mut words = all;
    while let [rest @ .., last] = words
        && !rest.is_empty()
        && (TRAILING_WORDS.contains(last) || last.bytes().all(|it| it.is_ascii_digit()))
    {
        words = rest;
    }
    let [rest @ .., last] = words else { return None };
    let last = last.trim_end_matches(|it: char| it.is_ascii_digit());
    let among = |list: &[&str]| rest.iter().any(|word| list.contains(word));
    if PASSWORD_WORDS.contains(&last)
        || last.ends_with("password")
        || last.ends_with("passwd")
        || last.ends_with("pwd")
    {
        return Some(ValueStrictness::Password);
    }
    if HASH_WORDS.contains(&last) {
        let of_a_secret = all.iter().any(|it| it.contains("pass") || *it == "secret" || *it == "pwd");
        return (of_a_secret || last == "salt").then_some(ValueStrictness::Random);
    }
    if let Some(before) = last.strip_suffix("pass") {
        let owned = among(PASSWORD_OWNERS) || PASSWORD_OWNERS.contains(&before);
        return Some(if owned { ValueStrictness::Password } else { ValueStrictness::Mixed });
    }
    if last.ends_with("secret") || last == "secrets" {
        return Some(ValueStrictness::Plain);
    }
    if let Some(before) = last.strip_suffix("token").or_else(|| last.strip_suffix("tokens")) {
        let known = among(SECRET_TOKEN_WORDS) || SECRET_TOKEN_WORDS.contains(&before);
        return Some(if known { ValueStrictness::Plain } else { ValueStrictness::Random });
    }
    if let Some(before) = last.strip_suffix("key").or_else(|| last.strip_suffix("keys")) {
        if among(PUBLIC_KEY_WORDS) || PUBLIC_KEY_WORDS.contains(&before) {
            return None;
        }
        let opens = |list: &[&str]| among(list) || list.contains(&before);
        return match () {
            () if opens(SECRET_KEY_WORDS) => Some(ValueStrictness::Plain),
            () if opens(POSSIBLE_KEY_WORDS) => Some(ValueStrictness::Random),
            () => None,
        };
    }
    let of_one_time = |it: &&str| ["totp", "otp", "mfa", "2fa", "hotp"].contains(it);
    match last {
        "seed" | "phrase" if rest.iter().any(of_one_time) => Some(ValueStrictness::Plain),
        "phrase" if among(&["seed", "recovery", "pass", "secret"]) => Some(ValueStrictness::Password),
        "pin" if among(&["sim", "card", "user", "login", "security", "door", "bank"]) => {
            Some(ValueStrictness::Password)
        }
        "id" if among(&["private", "session", "sess"]) => Some(ValueStrictness::Random),
        "credential" | "credentials" | "creds" | "cred" | "auth" | "authorization" | "cookie" | "cookies"
        | "seed" | "otp" | "jwt" | "pat" | "sig" | "signature" | "pin" | "psk" => {
            Some(ValueStrictness::Random)
        }
        "sid" | "sessid" | "sessionid" | "jsessionid" | "phpsessid" | "session" | "totp" => {
            Some(ValueStrictness::Random)
        }
        _ => None,
    }
}

/// Whether a name is plural.
pub(super) fn is_plural_name(name: &str) -> bool {
    name.trim_end_matches(|it: char| !it.is_alphanumeric()).ends_with(['s', 'S'])
}

/// The words of a name in lower case: `AWS_SECRET_ACCESS_KEY`, `clientSecret`, `X-Api-Key`.
pub(super) fn name_words(name: &str) -> Vec<String> {
    let (mut lower, mut ends) = (String::new(), Vec::new());
    split_words(name, &mut lower, &mut ends);
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, &end)| lower[start..end].to_owned()).collect()
}

/// The words of a name, concatenated, and where each ends.
fn split_words(name: &str, lower: &mut String, ends: &mut Vec<usize>) {
    lower.clear();
    ends.clear();
    if name.is_ascii() {
        let bytes = name.as_bytes();
        for (at, &byte) in bytes.iter().enumerate() {
            let before = at.checked_sub(1).map_or(b' ', |before| bytes[before]);
            let next_is_lower = bytes.get(at + 1).is_some_and(u8::is_ascii_lowercase);
            let starts = byte.is_ascii_uppercase()
                && (before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || before.is_ascii_uppercase() && next_is_lower);
            let open = lower.len() > ends.last().copied().unwrap_or(0);
            if open && (starts || !byte.is_ascii_alphanumeric()) {
                ends.push(lower.len());
            }
            if byte.is_ascii_alphanumeric() {
                lower.push(char::from(byte.to_ascii_lowercase()));
            }
        }
        if lower.len() > ends.last().copied().unwrap_or(0) {
            ends.push(lower.len());
        }
        return;
    }
    let mut before = None::<char>;
    let mut characters = name.chars().peekable();
    while let Some(c) = characters.next() {
        let next_is_lower = characters.peek().is_some_and(|next| next.is_lowercase());
        let starts = c.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase() || before.is_numeric() || before.is_uppercase() && next_is_lower
            });
        let open = lower.len() > ends.last().copied().unwrap_or(0);
        if (starts || !c.is_alphanumeric()) && open {
            ends.push(lower.len());
        }
        if c.is_alphanumeric() {
            lower.extend(c.to_lowercase());
        }
        before = Some(c);
    }
    if lower.len() > ends.last().copied().unwrap_or(0) {
        ends.push(lower.len());
    }
}
