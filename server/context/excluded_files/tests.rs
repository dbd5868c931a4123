//! Which files are excluded, and that a project can only add to them.
//! It knows nothing of who asks.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use super::*;

fn built_in(path: &str) -> bool {
    ExcludedFiles::default().excludes(Path::new(path)) == Some(Excluded::BuiltIn)
}

#[test]
fn files_of_secrets_are_excluded_and_code_is_not() {
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
        assert!(built_in(&path), "{path}");
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
        assert_eq!(ExcludedFiles::default().excludes(Path::new(path)), None, "{path}");
    }
}

#[test]
fn an_option_adds_and_cannot_lift() {
    let of =
        |patterns: &[&str]| ExcludedFiles::new(patterns.iter().map(|&it| it.to_owned()).collect()).unwrap();
    let excluded = of(&["!*", "!.env"]);
    assert_eq!(excluded.excludes(Path::new(".env")), Some(Excluded::BuiltIn));
    let excluded = of(&["generated/", "*.sql", "!keep.sql", "!.env"]);
    assert_eq!(excluded.excludes(Path::new("a/generated/b.rs")), Some(Excluded::Option));
    assert_eq!(excluded.excludes(Path::new("a/DUMP.sql")), Some(Excluded::Option));
    assert_eq!(excluded.excludes(Path::new("a/keep.sql")), None);
    assert_eq!(excluded.excludes(Path::new("a/b.rs")), None);
    assert!(ExcludedFiles::new(vec!["a{b".to_owned()]).unwrap_err().contains("`a{b`"));
}

fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn a_project_adds_and_cannot_lift() {
    let folder = project(&[
        (".taperignore", "/private.py\n*.gen.rs\nnotes/\n!.env\n!*.pem\n[\n"),
        ("a/.taperignore", "!x.gen.rs\nonly_here.py\n"),
    ]);
    let root = folder.path();
    let none = ExcludedFiles::default();
    let on_disk = |path: &str| none.excludes_on_disk(Some(root), &root.join(path));
    assert_eq!(on_disk("private.py"), Some(Excluded::Project));
    assert_eq!(on_disk("a/private.py"), None);
    assert_eq!(
        on_disk("a/x.gen.rs"),
        Some(Excluded::Project),
        "a folder's list lifts nothing of the project's"
    );
    assert_eq!(on_disk("b/notes/c.py"), Some(Excluded::Project));
    assert_eq!(on_disk("a/only_here.py"), Some(Excluded::Project));
    assert_eq!(on_disk("only_here.py"), None);
    assert_eq!(on_disk(".env"), Some(Excluded::BuiltIn));
    assert_eq!(on_disk("a/server.pem"), Some(Excluded::BuiltIn));
    assert_eq!(on_disk("a/b.py"), None);
}

#[test]
fn a_list_that_cannot_be_read_excludes_its_folder() {
    let long = "a\n".repeat(40 << 10);
    let folder = project(&[("long/.taperignore", &long), ("long/a.py", ""), ("ok/a.py", "")]);
    let root = folder.path();
    fs::create_dir_all(root.join("folder/.taperignore")).unwrap();
    let none = ExcludedFiles::default();
    let on_disk = |path: &str| none.excludes_on_disk(Some(root), &root.join(path));
    assert_eq!(on_disk("long/b/a.py"), Some(Excluded::Project));
    assert_eq!(on_disk("folder/a.py"), Some(Excluded::Project));
    assert_eq!(on_disk("ok/a.py"), None);
    #[cfg(unix)]
    for (folder, device) in [("zero", "/dev/zero"), ("terminal", "/dev/tty")] {
        fs::create_dir_all(root.join(folder)).unwrap();
        std::os::unix::fs::symlink(device, root.join(folder).join(".taperignore")).unwrap();
        assert_eq!(on_disk(&format!("{folder}/a.py")), Some(Excluded::Project));
    }
}

#[test]
fn a_walk_through_a_project_leaves_out_what_is_excluded() {
    let folder = project(&[
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
    let found = crawl::files(folder.path(), &[], crawl::Limits::USUAL, &mut || false);
    let paths: Vec<String> = found.into_iter().map(|it| it.path).collect();
    assert_eq!(paths, ["config.json", "a/open.py"]);
}

#[cfg(unix)]
#[test]
fn a_link_is_what_it_leads_to() {
    let folder = project(&[(".env", "A=1\n"), ("plain.py", ""), (".taperignore", "plain.py\n")]);
    let root = folder.path();
    std::os::unix::fs::symlink(root.join(".env"), root.join("notes.py")).unwrap();
    std::os::unix::fs::symlink(root.join("plain.py"), root.join("other.py")).unwrap();
    let none = ExcludedFiles::default();
    assert_eq!(none.excludes_on_disk(Some(root), &root.join("notes.py")), Some(Excluded::BuiltIn));
    assert_eq!(none.excludes_on_disk(Some(root), &root.join("other.py")), Some(Excluded::Project));
    assert_eq!(none.excludes_on_disk(None, &root.join("notes.py")), Some(Excluded::BuiltIn));
}
