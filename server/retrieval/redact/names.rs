//! Classifies names: which names are those of secrets.

use super::values::ValueStrictness;
use super::words::{NameWords, WordKinds};

/// Keywords of names: every name that [`NameClassifier`] knows contains one.
#[rustfmt::skip]
pub(super) const NAME_PARTS: &[&str] = &[
    "pass", "pwd", "secret", "token", "key", "cred", "auth", "mnemonic", "seed", "salt", "cookie", "sess",
    "sid", "pw", "pin", "otp", "jwt", "_pat", "sig", "kennwort", "losung", "senha", "contrase", "clave",
    "mdp", "mot_de", "motde", "haslo", "wachtwoord", "parola", "heslo", "sifre", "密码", "密碼", "口令", "パスワード",
    "пароль", "비밀번호",
];

/// Maximum number of words of a name that count: its last ones.
const MAX_NAME_WORDS: usize = 16;

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
        let is_ambiguous = ["key", "keys", "pass"].iter().any(|it| own.eq_ignore_ascii_case(it));
        self.lower.clear();
        self.ends.clear();
        let mut words = NameWords::new(if is_ambiguous { name } else { own });
        while let Some(word) = words.next_word() {
            self.lower.push_str(word);
            self.ends.push(self.lower.len());
        }
        let mut all = [""; MAX_NAME_WORDS];
        let skipped = self.ends.len().saturating_sub(all.len());
        let mut start = skipped.checked_sub(1).map_or(0, |last| self.ends[last]);
        let mut count = 0;
        for &end in &self.ends[skipped..] {
            all[count] = &self.lower[start..end];
            count += 1;
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
        && (WordKinds::of(last).is_any(WordKinds::TRAILING) || last.bytes().all(|it| it.is_ascii_digit()))
    {
        words = rest;
    }
    let [rest @ .., last] = words else { return None };
    let last = last.trim_end_matches(|it: char| it.is_ascii_digit());
    let kinds = WordKinds::of(last);
    let rest_kinds = rest.iter().map(|it| WordKinds::of(it)).fold(WordKinds::default(), WordKinds::or);
    // The kinds of the other words and of what precedes the keyword in the last one: `user_pass`, `userpass`.
    let qualifiers = |before: &str| rest_kinds.or(WordKinds::of(before));
    if kinds.is_any(WordKinds::PASSWORD)
        || last.ends_with("password")
        || last.ends_with("passwd")
        || last.ends_with("pwd")
    {
        return Some(ValueStrictness::Password);
    }
    if kinds.is_any(WordKinds::HASH) {
        let of_a_secret = all.iter().any(|it| it.contains("pass") || *it == "secret" || *it == "pwd");
        return (of_a_secret || last == "salt").then_some(ValueStrictness::Random);
    }
    if let Some(before) = last.strip_suffix("pass") {
        let owned = qualifiers(before).is_any(WordKinds::PASSWORD_OWNER);
        return Some(if owned { ValueStrictness::Password } else { ValueStrictness::Mixed });
    }
    if last.ends_with("secret") || last == "secrets" {
        return Some(ValueStrictness::Plain);
    }
    if let Some(before) = last.strip_suffix("token").or_else(|| last.strip_suffix("tokens")) {
        let known = qualifiers(before).is_any(WordKinds::SECRET_TOKEN);
        return Some(if known { ValueStrictness::Plain } else { ValueStrictness::Random });
    }
    if let Some(before) = last.strip_suffix("key").or_else(|| last.strip_suffix("keys")) {
        let qualifiers = qualifiers(before);
        return match () {
            () if qualifiers.is_any(WordKinds::PUBLIC_KEY) => None,
            () if qualifiers.is_any(WordKinds::SECRET_KEY) => Some(ValueStrictness::Plain),
            () if qualifiers.is_any(WordKinds::POSSIBLE_KEY) => Some(ValueStrictness::Random),
            () => None,
        };
    }
    let among = |list: &[&str]| rest.iter().any(|word| list.contains(word));
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
