//! Tests of excluded files: which files are excluded, and that a project can only add to them.

use std::fs;

use super::*;

fn is_built_in(path: &str) -> bool {
    ExcludedFiles::default().exclusion_reason(Path::new(path)) == Some(ExclusionReason::BuiltIn)
}

#[test]
fn secret_files_are_excluded_and_code_is_not() {
    for path in [
        ".env",
        ".ENV",
        ".env.local",
        ".env.production",
        "a/b/.env.example",
        ".envrc",
        "prod.env",
        "/home/a/.netrc",
        "id_rsa",
        "id_rsa.pub",
        "a/id_ed25519",
        "server.pem",
        "SERVER.PEM",
        "tls.key",
        "cert.crt",
        "a.p12",
        "a.pfx",
        "a.jks",
        "a.kdbx",
        "a.ppk",
        ".npmrc",
        ".pypirc",
        ".pgpass",
        ".htpasswd",
        "credentials",
        "credentials.json",
        "secrets.yml",
        "secrets.yaml",
        "secrets.json",
        "secrets.toml",
        "config/prod-secrets.yaml",
        "terraform.tfvars",
        "prod.auto.tfvars",
        "terraform.tfstate",
        "terraform.tfstate.backup",
        "service-account.json",
        "my-service-account-key.json",
        "a-firebase-adminsdk-x.json",
        "/home/a/.aws/credentials",
        "/home/a/.aws/config",
        "/home/a/.docker/config.json",
        "/home/a/.kube/config",
        "kubeconfig",
        "/home/a/.ssh/config",
        "/home/a/.ssh/work",
        "wp-config.php",
        "client_secret_123.json",
        "C:\\Users\\a\\x.pem",
        ".git-credentials",
        "./x/../.env",
        "/etc/shadow",
        "passwords.csv",
        "local.settings.json",
        "config/master.key",
        ".vault-token",
    ] {
        let path = path.replace('\\', "/");
        assert!(is_built_in(&path), "{path}");
    }
    for path in [
        "secrets.py",
        "secrets.rs",
        "src/secrets/mod.rs",
        "env.rs",
        "env.py",
        "environment.ts",
        "keys.ts",
        "key.rs",
        "config/keys.rs",
        "credentials.py",
        "src/credentials/index.ts",
        "src/credentials.ts",
        "password.py",
        "passwords.py",
        "token.rs",
        "tokens.json",
        "auth.py",
        "vault.go",
        "a.env.rs",
        "pem.rs",
        "kube/config.go",
        "aws/credentials_provider.go",
        "docker/config.json",
        "settings.json",
        "package.json",
        "Cargo.lock",
        "README.md",
        "secret_santa.py",
        "shadow.css",
        "test_key.py",
        "monkey.js",
        "certificates.go",
        "service_account.py",
    ] {
        assert_eq!(ExcludedFiles::default().exclusion_reason(Path::new(path)), None, "{path}");
    }
}

#[test]
fn excluded_files_option_only_adds_exclusions() {
    let of =
        |patterns: &[&str]| ExcludedFiles::new(patterns.iter().map(|&it| it.to_owned()).collect()).unwrap();
    let excluded = of(&["!*", "!.env"]);
    assert_eq!(excluded.exclusion_reason(Path::new(".env")), Some(ExclusionReason::BuiltIn));
    let excluded = of(&["generated/", "*.sql", "!keep.sql", "!.env"]);
    assert_eq!(excluded.exclusion_reason(Path::new("a/generated/b.rs")), Some(ExclusionReason::Option));
    assert_eq!(excluded.exclusion_reason(Path::new("a/DUMP.sql")), Some(ExclusionReason::Option));
    assert_eq!(excluded.exclusion_reason(Path::new("a/keep.sql")), None);
    assert_eq!(excluded.exclusion_reason(Path::new("a/b.rs")), None);
    assert!(ExcludedFiles::new(vec!["a{b".to_owned()]).unwrap_err().contains("`a{b`"));
}

fn make_project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn taperignore_only_adds_exclusions() {
    let folder = make_project(&[
        (".taperignore", "/private.py\n*.gen.rs\nnotes/\n!.env\n!*.pem\n[\n"),
        ("a/.taperignore", "!x.gen.rs\nonly_here.py\n"),
    ]);
    let root = folder.path();
    let none = ExcludedFiles::default();
    let on_disk = |path: &str| none.exclusion_reason_on_disk(Some(root), &root.join(path));
    assert_eq!(on_disk("private.py"), Some(ExclusionReason::Project));
    assert_eq!(on_disk("a/private.py"), None);
    assert_eq!(
        on_disk("a/x.gen.rs"),
        Some(ExclusionReason::Project),
        "a folder's list lifts nothing of the project's"
    );
    assert_eq!(on_disk("b/notes/c.py"), Some(ExclusionReason::Project));
    assert_eq!(on_disk("a/only_here.py"), Some(ExclusionReason::Project));
    assert_eq!(on_disk("only_here.py"), None);
    assert_eq!(on_disk(".env"), Some(ExclusionReason::BuiltIn));
    assert_eq!(on_disk("a/server.pem"), Some(ExclusionReason::BuiltIn));
    assert_eq!(on_disk("a/b.py"), None);
}

#[test]
fn unreadable_taperignore_excludes_its_folder() {
    let long = "a\n".repeat(40 << 10);
    let folder = make_project(&[("long/.taperignore", &long), ("long/a.py", ""), ("ok/a.py", "")]);
    let root = folder.path();
    fs::create_dir_all(root.join("folder/.taperignore")).unwrap();
    let none = ExcludedFiles::default();
    let on_disk = |path: &str| none.exclusion_reason_on_disk(Some(root), &root.join(path));
    assert_eq!(on_disk("long/b/a.py"), Some(ExclusionReason::Project));
    assert_eq!(on_disk("folder/a.py"), Some(ExclusionReason::Project));
    assert_eq!(on_disk("ok/a.py"), None);
    #[cfg(unix)]
    for (folder, device) in [("zero", "/dev/zero"), ("terminal", "/dev/tty")] {
        fs::create_dir_all(root.join(folder)).unwrap();
        std::os::unix::fs::symlink(device, root.join(folder).join(".taperignore")).unwrap();
        assert_eq!(on_disk(&format!("{folder}/a.py")), Some(ExclusionReason::Project));
    }
}

#[test]
fn crawl_skips_excluded_files() {
    let folder = make_project(&[
        (".taperignore", "/private.py\nnotes/\n!secrets.json\n"),
        ("a/.taperignore", "!notes/\n!private.py\nhere.py\n"),
        ("private.py", ""),
        ("a/here.py", ""),
        ("a/notes/b.py", ""),
        ("a/secrets.json", "{}"),
        ("a/SECRETS.JSON", "{}"),
        ("service-account.json", "{}"),
        ("wp-config.php", ""),
        ("config.json", "{}"),
        ("a/open.py", ""),
    ]);
    let found = crawl::find_files(folder.path(), &[], crawl::CrawlLimits::DEFAULT, &mut || false);
    let paths: Vec<String> = found.into_iter().map(|it| it.path).collect();
    assert_eq!(paths, ["config.json", "a/open.py"]);
}

#[cfg(unix)]
#[test]
fn symlink_is_excluded_like_its_target() {
    let folder = make_project(&[(".env", "A=1\n"), ("plain.py", ""), (".taperignore", "plain.py\n")]);
    let root = folder.path();
    std::os::unix::fs::symlink(root.join(".env"), root.join("notes.py")).unwrap();
    std::os::unix::fs::symlink(root.join("plain.py"), root.join("other.py")).unwrap();
    let none = ExcludedFiles::default();
    assert_eq!(
        none.exclusion_reason_on_disk(Some(root), &root.join("notes.py")),
        Some(ExclusionReason::BuiltIn)
    );
    assert_eq!(
        none.exclusion_reason_on_disk(Some(root), &root.join("other.py")),
        Some(ExclusionReason::Project)
    );
    assert_eq!(none.exclusion_reason_on_disk(None, &root.join("notes.py")), Some(ExclusionReason::BuiltIn));
}
