//! Runs the cases of `completion/*.txt` through the whole completion path, with a scripted engine as the model.

use std::fmt::Write as _;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use taper::completion::{self, Options, Snapshot, Trigger};
use taper::prompt::template::Profile;
use taper::syntax::Syntax;
use taper::text::Rope;
use taper_engine::Engine;
use taper_engine::scripted::ScriptedEngine;

/// One case; `completion/README.md` describes the format.
#[derive(Debug, Default)]
struct Case {
    /// File and line, and its title.
    name: String,
    language: String,
    unasked: bool,
    place: String,
    says: String,
    /// `None`: no suggestion.
    shows: Option<String>,
}

/// A block's text: signs become blanks, and empty lines at the block's end do not count.
fn block(lines: &[&str]) -> String {
    let text = lines.join("\n");
    let signs = [('␠', " "), ('␉', "\t"), ('␍', "\r"), ('␀', "\0"), ('⏎', "")];
    let mut text = text.trim_end_matches('\n').to_owned();
    for (sign, meant) in signs {
        text = text.replace(sign, meant);
    }
    text
}

/// Parses the cases of a file; an error names the line.
fn read(file: &str, text: &str) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let heads: Vec<usize> = (0..lines.len()).filter(|&at| lines[at].starts_with("== ")).collect();
    for (number, &head) in heads.iter().enumerate() {
        let end = heads.get(number + 1).copied().unwrap_or(lines.len());
        let fault = |what: &str| Err(format!("{file}:{}: {what}: {}", head + 1, lines[head]));
        let Some((language, title)) = lines[head][3..].split_once(": ") else {
            return fault("a head is `== LANGUAGE: what and why`");
        };
        let (language, unasked) = match language.strip_suffix(", unasked") {
            Some(language) => (language, true),
            None => (language, false),
        };
        let body = &lines[head + 1..end];
        let Some(says) = body.iter().position(|line| *line == "-- says") else {
            return fault("no `-- says`");
        };
        let shows = body.iter().position(|line| matches!(*line, "-- shows" | "-- nothing"));
        let Some(shows) = shows.filter(|&shows| shows > says) else {
            return fault("no `-- shows` or `-- nothing` after `-- says`");
        };
        let shown = block(&body[shows + 1..]);
        let nothing = body[shows] == "-- nothing";
        if nothing != shown.is_empty() {
            return fault("`-- shows` has a text and `-- nothing` none");
        }
        let place = block(&body[..says]) + "\n";
        if place.matches('▮').count() != 1 {
            return fault("one `▮` is the cursor");
        }
        cases.push(Case {
            name: format!("{file}:{}: {}: {title}", head + 1, language),
            language: language.to_owned(),
            unasked,
            place,
            says: block(&body[says + 1..shows]),
            shows: (!nothing).then_some(shown),
        });
    }
    Ok(cases)
}

/// The suggestion as it would be inserted, and the document with it.
fn suggested(case: &Case) -> (Option<String>, String) {
    let language = taper_grammars::by_id(&case.language);
    assert!(language.is_some() || case.language == "unknown", "{}: no such language", case.name);
    let extension = language.and_then(|it| it.extensions.first().copied()).unwrap_or("unknown");
    let (before, after) = case.place.split_once('▮').unwrap();
    let text = Rope::from_str(&format!("{before}{after}"));
    let snapshot = Snapshot {
        syntax: language.and_then(|it| Syntax::parse(&text, it, &mut || false)),
        language,
        path: format!("a.{extension}"),
        trigger: if case.unasked { Trigger::Automatic } else { Trigger::Invoked },
        ..Snapshot::new(text, before.len(), Options::default())
    };
    let says = case.says.clone();
    let mut engine: Box<dyn Engine> = Box::new(ScriptedEngine::new().answer_with(move |_| says.clone()));
    let mut profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
    // So the script has all of the answer, and none of the text before the cursor.
    profile.form.heal = false;
    let outcome =
        completion::suggest(&snapshot, &profile, engine.as_mut(), &mut |_| ControlFlow::Continue(()));
    let shown = outcome.unwrap().0;
    if let Some(it) = &shown {
        assert_eq!(it.range, snapshot.cursor..snapshot.cursor, "{}", case.name);
    }
    let text = shown.map(|it| it.text);
    let document = format!("{before}{}{after}", text.as_deref().unwrap_or(""));
    (text, document)
}

/// A text with invisible characters replaced by signs.
fn visible(text: Option<&str>) -> String {
    let Some(text) = text else { return "-- nothing".to_owned() };
    let lines = text.replace('\r', "␍").replace('\t', "␉");
    let lines = lines.split('\n').map(|line| {
        let bare = line.trim_end_matches(' ');
        bare.to_owned() + &"␠".repeat(line.len() - bare.len())
    });
    format!("-- shows\n{}", lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_case_suggests_its_expected_text() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/completion");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "txt"));
    files.sort();
    let (mut count, mut wrong) = (0, String::new());
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy();
        let cases = read(&name, &fs::read_to_string(path).unwrap()).unwrap();
        assert!(!cases.is_empty(), "{name} has no case");
        for case in cases {
            count += 1;
            let (shown, document) = suggested(&case);
            if shown != case.shows {
                let (expected, found) = (visible(case.shows.as_deref()), visible(shown.as_deref()));
                write!(wrong, "\n{}\nexpected {expected}\nfound {found}\nwith it\n{document}\n", case.name)
                    .unwrap();
            }
        }
    }
    assert!(!files.is_empty() && wrong.is_empty(), "of {count} cases:\n{wrong}");
}

#[test]
fn case_file_is_parsed() {
    let text = "# why\n== python, unasked: title\nx = ▮\n\n-- says\n1␠\n⏎\n-- shows\n1\n\n== lua: b\n▮\n-- says\n-- nothing\n";
    let cases = read("a", text).unwrap();
    let it = &cases[0];
    assert_eq!((it.language.as_str(), it.unasked, it.place.as_str()), ("python", true, "x = ▮\n"));
    assert_eq!((it.says.as_str(), it.shows.as_deref()), ("1 \n", Some("1")));
    assert_eq!((cases[1].place.as_str(), cases[1].says.as_str(), &cases[1].shows), ("▮\n", "", &None));
    for wrong in [
        "== python\n",
        "== a: b\n▮\n-- shows\nx\n",
        "== a: b\nx\n-- says\n-- nothing\n",
        "== a: b\n▮\n-- says\n-- nothing\nx\n",
    ] {
        assert!(read("a", wrong).is_err(), "{wrong}");
    }
}
