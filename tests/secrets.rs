//! Secrets of a project, end to end: none of another file reaches a prompt, secret files are excluded, and logs reveal
//! neither.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::client::{Client, explicit_params};

/// Must not be in any prompt; each is written in another file.
const SECRETS: [&str; 6] =
    ["hunter2ondisk", "hunter2inaneditor", "hunter2env", "hunter2key", "hunter2link", "hunter2list"];

/// A scripted engine that outputs `leaked` if the prompt has a secret, `seen` if it has this text of another file.
fn script(folder: &Path, text: &str) -> String {
    let mut script = String::new();
    for secret in SECRETS {
        script += &format!("when {secret}\nanswer leaked\n");
    }
    script += &format!("when {text}\nanswer seen\notherwise\nanswer y\n");
    let path = folder.join("script");
    fs::write(&path, script).unwrap();
    format!("scripted:{}", path.display())
}

struct Project {
    _folders: [tempfile::TempDir; 2],
    root: PathBuf,
    client: Client,
}

impl Project {
    fn start(files: &[(&str, String)], options: Value) -> Self {
        Self::start_to_see("def weigh_a_parcel", files, options)
    }

    /// With an engine that outputs `seen` if the prompt has this text of another file.
    fn start_to_see(text: &str, files: &[(&str, String)], options: Value) -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let root = folders[0].path().canonicalize().unwrap();
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut client = Client::start(&["--stdio", "--engine", &script(folders[1].path(), text)]);
        let mut options = options;
        options["snippet-tokens"] = json!(2000);
        client.initialize(json!({
            "processId": null,
            "rootUri": format!("file://{}", root.display()),
            "capabilities": { "textDocument": { "inlineCompletion": {} } },
            "initializationOptions": options,
        }));
        client.wait_ready();
        Self { _folders: folders, root, client }
    }

    fn uri(&self, name: &str) -> String {
        format!("file://{}/{name}", self.root.display())
    }

    fn open(&mut self, name: &str, text: &str) {
        let uri = self.uri(name);
        self.client.open(&uri, "python", text);
    }

    /// The suggestion of an automatic request at the end of a document of one line.
    fn typing(&mut self, name: &str, column: u32) -> String {
        let uri = self.uri(name);
        self.client.inline(&uri, 0, column)
    }

    /// The result of an explicit request.
    fn asking(&mut self, name: &str, column: u32) -> Value {
        let params = explicit_params(&self.uri(name), 0, column);
        self.client.ask("textDocument/inlineCompletion", params)["result"].clone()
    }

    fn explained(&mut self) -> Value {
        let command = json!({ "command": "taper.explainLast" });
        self.client.ask("workspace/executeCommand", command)["result"].clone()
    }

    #[track_caller]
    fn end(self) {
        let reported =
            self.client.notices.iter().map(Value::to_string).collect::<String>() + &self.client.log();
        for secret in SECRETS {
            assert!(!reported.contains(secret), "{secret} is in a log or a notification");
        }
        self.client.quit();
    }
}

fn code(name: &str, secret: &str) -> String {
    format!("def {name}(parcel, scale):\n    {secret}\n    return scale.weigh(parcel)\n")
}

#[test]
fn secrets_of_other_files_reach_no_prompt_log_or_explanation() {
    let files = [
        ("disk.py", code("weigh_a_parcel", "password = \"hunter2ondisk\"")),
        ("secrets.json", "{ \"weigh_a_parcel\": \"hunter2key\" }\n".to_owned()),
        (".env", "weigh_a_parcel=hunter2env\n".to_owned()),
    ];
    // The lines themselves are in the prompt, redacted.
    for (line, calls) in
        [("password = \"REDACTED\"", "weigh_a_parcel"), ("scale:REDACTED@parcel", "ship_a_crate")]
    {
        let mut project = Project::start_to_see(line, &files, json!({}));
        let call = format!("{calls}(parcel, scale, password)");
        project.open("open.py", &format!("{call}\n"));
        project.client.wait_indexed(2);
        project.open(
            "other.py",
            &code("ship_a_crate", "connect(\"postgres://scale:hunter2inaneditor@parcel/weigh\")"),
        );
        project.client.wait_indexed(3);
        // Independent of the language that the editor names.
        project.open(".env", &code("weigh_it", "parcel = 'hunter2env'"));
        project.open("server.key", &code("weigh_it", "parcel = 'hunter2key'"));
        project.open("more.py", "x = 1\n");
        project.client.wait_indexed(4);
        assert_eq!(project.typing("open.py", u32::try_from(call.len()).unwrap()), "seen");
        let explanation = project.explained().to_string();
        assert!(SECRETS.iter().all(|secret| !explanation.contains(secret)), "{explanation}");
        project.end();
    }
}

#[test]
fn secret_files_get_no_automatic_suggestion_with_reason() {
    let mut project = Project::start(&[], json!({ "excluded-files": ["*.private.py"] }));
    for name in [".env", ".ENV.local", "id_rsa", "a.private.py", "%2Eenv.production", "secrets.yaml"] {
        project.open(name, "weigh_a_parcel = \n");
        assert_eq!(project.typing(name, 17), "", "{name}");
        let explained = project.explained();
        let reason = explained["silence"]["work"]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("suggestions only on request"), "{name}: {explained}");
        assert!(
            project.asking(name, 17).to_string().contains('y'),
            "{name}: an explicit request is answered"
        );
    }
    project.open("env.py", "weigh_a_parcel = \n");
    assert_eq!(project.typing("env.py", 17), "y");
    project.end();
}

#[test]
fn project_can_add_but_not_remove_exclusions() {
    let files = [
        (".taperignore", "/listed.py\n!.env\n".to_owned()),
        ("listed.py", code("weigh_it", "parcel = 'hunter2list'")),
        ("disk.py", code("weigh_a_parcel", "pass")),
    ];
    let mut project = Project::start(&files, json!({}));
    project.open("open.py", "weigh_a_parcel(parcel, scale, 'x')\n");
    project.client.wait_indexed(2);
    assert_eq!(project.typing("open.py", 34), "seen");
    project.open(".env", "x = \n");
    project.open("listed.py", "x = \n");
    project.open("later.py", "x = \n");
    assert_eq!(project.typing(".env", 4), "");
    assert_eq!(project.typing("listed.py", 4), "");
    assert_eq!(project.typing("later.py", 4), "y");
    // A changed list applies at once, also to open documents.
    fs::write(project.root.join(".taperignore"), "later.py\n").unwrap();
    let uri = project.uri(".taperignore");
    project.client.notify("textDocument/didSave", json!({ "textDocument": { "uri": uri } }));
    assert_eq!(project.typing("later.py", 4), "");
    assert_eq!(project.typing("listed.py", 4), "y");
    project.end();
}

#[cfg(unix)]
#[test]
fn link_to_secret_file_is_excluded() {
    let files =
        [(".env", code("weigh_it", "parcel = 'hunter2link'")), ("disk.py", code("weigh_a_parcel", "pass"))];
    let mut project = Project::start(&files, json!({}));
    std::os::unix::fs::symlink(project.root.join(".env"), project.root.join("notes.py")).unwrap();
    project.open("notes.py", &code("weigh_it", "parcel = 'hunter2link'"));
    project.open("open.py", "weigh_a_parcel(parcel, scale, 'x')\n");
    project.client.wait_indexed(2);
    assert_eq!(project.typing("open.py", 34), "seen");
    assert_eq!(project.typing("notes.py", 3), "");
    project.end();
}
