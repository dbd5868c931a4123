//! Compares the tokenizer with data that the libraries of the models' authors made; see `fixtures/make.py`.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::super::*;

fn fixture_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tokenizer/fixtures").join(name)
}

fn read_fixture(name: &str) -> String {
    fs::read_to_string(fixture_path(name)).unwrap()
}

fn sample_texts() -> Vec<String> {
    read_fixture("sample.txt").split("\n=====\n").map(str::to_owned).collect()
}

#[test]
fn pre_tokenizers_split_as_the_authors_expressions() {
    let texts = sample_texts();
    let mut names_read = 0;
    for line in read_fixture("splits.txt").lines() {
        let (names, splits) = line.split_once('\t').unwrap();
        for name in names.split(' ') {
            names_read += 1;
            let splitter = PreTokenizer::from_name(name).unwrap();
            assert!(splitter.is_known, "{name}");
            for (text, expected) in texts.iter().zip(splits.split(',')) {
                let mut lengths: Vec<String> = Vec::new();
                let mut pieces = Vec::new();
                splitter.split_text(text, &mut |piece| {
                    lengths.push(piece.chars().count().to_string());
                    pieces.push(piece);
                });
                assert_eq!(lengths.join(" "), expected, "{name}: {pieces:?}");
            }
        }
    }
    assert!(names_read > 50, "{names_read}");
}

fn load_cut_vocabulary(fields: &Value) -> Tokenizer {
    fn strings<'a>(fields: &'a Value, key: &str) -> Vec<&'a [u8]> {
        let list = fields[key].as_array().map_or(&[][..], Vec::as_slice);
        list.iter().map(|it| it.as_str().unwrap().as_bytes()).collect()
    }
    let numbers = |key: &str| {
        let list = fields[key].as_array().map_or(&[][..], Vec::as_slice);
        list.iter().map(|it| it.as_f64().unwrap()).collect()
    };
    Tokenizer::from_raw(&RawVocabulary {
        path: Path::new("fixture"),
        sentencepiece: fields["model"] == "llama",
        pre: fields["pre"].as_str().unwrap(),
        tokens: strings(fields, "tokens"),
        types: numbers("types"),
        scores: numbers("scores"),
        merges: strings(fields, "merges"),
        add_bos: None,
        ids: Vec::new(),
    })
    .unwrap()
}

#[test]
fn real_vocabularies_encode_as_the_authors_libraries() {
    let texts = sample_texts();
    let mut vocabularies = 0;
    for entry in fs::read_dir(fixture_path("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("vocabulary-") {
            continue;
        }
        vocabularies += 1;
        let fields: Value = serde_json::from_str(&read_fixture(&name)).unwrap();
        let tokenizer = load_cut_vocabulary(&fields);
        for (text, expected) in texts.iter().zip(fields["ids"].as_array().unwrap()) {
            let expected: Vec<TokenId> =
                expected.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as TokenId).collect();
            let rendered =
                |ids: &[TokenId]| -> Vec<String> { ids.iter().map(|&id| tokenizer.render(&[id])).collect() };
            let ids = tokenizer.encode(text);
            assert_eq!(rendered(&ids), rendered(&expected), "{name}");
            assert_eq!(ids, expected, "{name}");
        }
    }
    assert!(vocabularies >= 8, "{vocabularies}");
}
