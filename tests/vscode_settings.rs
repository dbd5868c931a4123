//! The settings of the VS Code extension are the server's own options: names, types, defaults, texts.
//!
//! `UPDATE_EXPECT=1 cargo test --release --workspace vscode_settings` writes them to the extension's package.json.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use taper::config::{OptionSpec, option_specs};

/// Options that a project may set, by their scope in VS Code. All others are the user's own: they may name a file, a
/// device or a model, which can start a download.
const PROJECT_SETTINGS: &[(&str, &str)] = &[
    ("enable", "language-overridable"),
    ("disabled-languages", "window"),
    ("suggest", "window"),
    ("eagerness", "window"),
    ("max-lines", "window"),
    ("latency-budget-ms", "machine-overridable"),
    ("explicit-budget-ms", "machine-overridable"),
    ("debounce-ms", "machine-overridable"),
];

fn manifest() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("editors/vscode/package.json")
}

fn camel(name: &str) -> String {
    let mut parts = name.split('-');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |camel, part| camel + &part[..1].to_uppercase() + &part[1..])
}

/// The JSON schema of a value, from the option's description of it.
fn schema(OptionSpec { name, expected, .. }: &OptionSpec) -> Vec<(&'static str, Value)> {
    if *expected == "true or false" {
        return vec![("type", json!("boolean"))];
    }
    if *expected == "a list of strings" {
        return vec![("type", json!("array")), ("items", json!({ "type": "string" }))];
    }
    if expected.starts_with("a string") {
        return vec![("type", json!("string"))];
    }
    if let Some((least, most)) =
        expected.strip_prefix("a whole number from ").and_then(|it| it.split_once(" to "))
    {
        let number = |text: &str| json!(text.parse::<u64>().unwrap());
        return vec![("type", json!("integer")), ("minimum", number(least)), ("maximum", number(most))];
    }
    if expected.starts_with('"') {
        let choices: Vec<&str> = expected.split('"').skip(1).step_by(2).collect();
        assert!(choices.len() > 1, "{name}: {expected}");
        return vec![("type", json!("string")), ("enum", json!(choices))];
    }
    panic!("{name}: no JSON schema is known for `{expected}`");
}

/// The options as lines of package.json.
fn properties() -> String {
    let mut written = Vec::new();
    for (order, key) in option_specs().iter().enumerate() {
        let scope =
            PROJECT_SETTINGS.iter().find(|(name, _)| *name == key.name).map_or("machine", |(_, scope)| scope);
        let mut fields = schema(key);
        fields.push(("default", serde_json::from_str(key.default).unwrap()));
        fields.push(("scope", json!(scope)));
        fields.push(("order", json!(order + 1)));
        fields.push(("markdownDescription", json!(key.description)));
        let fields: Vec<String> =
            fields.iter().map(|(name, value)| format!("            \"{name}\": {value}")).collect();
        written.push(format!(
            "          \"taper.{}\": {{\n{}\n          }}",
            camel(key.name),
            fields.join(",\n")
        ));
    }
    format!("{{\n{}\n        }}", written.join(",\n"))
}

#[test]
fn vscode_settings_are_the_servers_options() {
    let text = fs::read_to_string(manifest()).unwrap();
    let begin = "\"title\": \"Server options\",\n        \"properties\": ";
    let start = text.find(begin).unwrap() + begin.len();
    // The end of the value: the line with the brace of the same indentation, or that of the empty value.
    let length = match text[start..].strip_prefix("{}") {
        Some(_) => 2,
        None => text[start..].find("\n        }").unwrap() + "\n        }".len(),
    };
    let wanted = format!("{}{}{}", &text[..start], properties(), &text[start + length..]);
    serde_json::from_str::<Value>(&wanted).unwrap();
    expect_test::expect_file![manifest()].assert_eq(&wanted);
}

#[test]
fn vscode_settings_that_a_project_may_set_exist() {
    for (name, _) in PROJECT_SETTINGS {
        assert!(option_specs().iter().any(|key| key.name == *name), "{name} is not an option");
    }
}

#[test]
fn vscode_settings_that_start_or_fetch_something_are_restricted() {
    let manifest: Value = serde_json::from_str(&fs::read_to_string(manifest()).unwrap()).unwrap();
    let restricted = &manifest["capabilities"]["untrustedWorkspaces"]["restrictedConfigurations"];
    let restricted: Vec<&str> =
        restricted.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let groups = manifest["contributes"]["configuration"].as_array().unwrap();
    let scopes = groups.iter().flat_map(|group| group["properties"].as_object().unwrap());
    let machine: Vec<&str> =
        scopes.filter(|(_, it)| it["scope"] == "machine").map(|(name, _)| name.as_str()).collect();
    for name in ["taper.serverPath", "taper.serverArguments", "taper.model", "taper.offline"] {
        assert!(restricted.contains(&name), "{name} can be set by an untrusted project");
        assert!(machine.contains(&name), "{name} can be set by a project");
    }
}
