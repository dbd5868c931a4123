//! What becomes of a suggestion that is shown: taken, taken in part, typed along, or left. Read off the edits, so that
//! it is known in every editor.
//! It knows nothing of who shows it, of documents, or of time.

use std::ops::Range;

use crate::suggest::Suggestion;
use crate::suggest::reuse::{self, nearly};
use crate::text::lines::is_word;
use crate::text::{Edit, Rope};

/// An edit that reaches further from the suggestion than so many bytes has nothing to do with it.
const REACH: usize = 65_536;

/// What became of a suggestion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All that was left of it was taken at once.
    Accepted,
    /// A part was taken, by word or by line, and the rest was not.
    Partly,
    /// At least its first word was typed as it says, or nearly (see [`nearly`]), and nothing taken.
    Typed,
    /// None of that: something else was typed, the cursor moved, the document was closed.
    Dismissed,
}

/// How a piece of the suggestion came into the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Key by key; bytes.
    Typed(usize),
    /// At once; bytes.
    Taken(usize),
}

/// A text that is shown or offered.
#[derive(Debug)]
struct Offer {
    /// All of it, from where it was first shown.
    whole: String,
    /// What is left of it.
    rest: String,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Something is left of it, and nothing else was done.
    Open,
    /// Its last character came by itself: by a key, as far as anyone can see.
    Complete,
    /// Its fate is known.
    Over(Fate),
}

/// A suggestion that is shown, from then until its fate is known. Refined, grown, or shown again while it is typed
/// along, it is still the same one.
#[derive(Debug)]
pub struct Life {
    /// What the rest replaces: empty at the cursor, most of the time.
    range: Range<usize>,
    /// What of it stands in the text already, since it was first shown.
    gone: String,
    /// The same, in pieces.
    pieces: Vec<Piece>,
    /// It, and what was offered in its place.
    offers: Vec<Offer>,
    /// Characters that were taken.
    characters: usize,
    /// Whether the text is as it was when it was last shown.
    fresh: bool,
    stage: Stage,
}

impl Life {
    /// A suggestion that is shown now, at `cursor` of `text`, with the texts that are offered in its place.
    pub fn new(text: &Rope, cursor: usize, shown: &Suggestion, others: &[String]) -> Self {
        let (range, rests) = placed(text, cursor, shown, others);
        let (gone, pieces, characters) = (String::new(), Vec::new(), 0);
        let offers = offers(&gone, rests);
        Self { range, gone, pieces, offers, characters, fresh: true, stage: Stage::Open }
    }

    /// Takes what is shown now for the same suggestion, if it is: at its place, and saying what it said, or nothing
    /// was typed in between.
    pub fn renew(&mut self, text: &Rope, cursor: usize, shown: &Suggestion, others: &[String]) -> bool {
        let (range, rests) = placed(text, cursor, shown, others);
        let same = self.stage == Stage::Open
            && self.range.start == range.start
            && (self.fresh || reuse::agrees(&rests[0], &self.offers[0].rest));
        if same {
            (self.range, self.offers, self.fresh) = (range, offers(&self.gone, rests), true);
        }
        same
    }

    /// The text was edited: `before` the edit, and `after` it.
    pub fn edited(&mut self, before: &Rope, edit: &Edit, after: &Rope) {
        if matches!(self.stage, Stage::Over(_)) {
            return;
        }
        let at = self.range.start;
        let becomes = |range: Range<usize>, text: &str| becomes(before, edit, after, range, text);
        if becomes(at..at, "") {
            return;
        }
        self.fresh = false;
        let whole = |rest: &&String| rest.chars().nth(1).is_some() && becomes(self.range.clone(), rest);
        if let Some(rest) = self.offers.iter().map(|it| &it.rest).find(whole) {
            self.characters += rest.chars().count();
            self.stage = Stage::Over(Fate::Accepted);
            return;
        }
        let done = match after.len_bytes().checked_sub(before.len_bytes()) {
            Some(length) => after
                .get_byte_slice(at..at + length)
                .map(|it| it.to_string())
                .is_some_and(|it| becomes(at..at, &it) && self.inserted(&it)),
            None => self.withdrawn(before.len_bytes() - after.len_bytes(), &becomes),
        };
        if !done {
            self.leave();
        }
    }

    /// This came in front of the rest: whether it belongs to it.
    fn inserted(&mut self, text: &str) -> bool {
        let taken = text.chars().nth(1).is_some() && !text.trim().is_empty();
        if self.advances(text, taken) {
            return true;
        }
        // Editors close brackets and quotes by themselves, with the key or right after it.
        let mut characters = text.chars();
        match (characters.next(), characters.next(), characters.next()) {
            (Some(opener), Some(closer), None) if closes(opener, closer) => {
                self.advances(&text[..opener.len_utf8()], false)
            }
            (Some(closer), None, _) => self.gone.chars().last().is_some_and(|opener| closes(opener, closer)),
            _ => false,
        }
    }

    /// Goes on behind `text`, which was taken or typed, if that is the beginning of the rest, or nearly and typed.
    fn advances(&mut self, text: &str, taken: bool) -> bool {
        if self.stage != Stage::Open {
            return false;
        }
        if self.offers.iter().any(|it| it.rest.starts_with(text)) {
            self.offers.retain_mut(|it| match it.rest.strip_prefix(text) {
                Some(rest) => {
                    it.rest = rest.to_owned();
                    true
                }
                None => false,
            });
        } else {
            let gone = self.gone.clone() + text;
            let rests: Vec<_> = self.offers.iter().map(|it| nearly::rest(&it.whole, &gone)).collect();
            if taken || rests.iter().all(Option::is_none) {
                return false;
            }
            let offers = std::mem::take(&mut self.offers).into_iter().zip(rests);
            self.offers = offers.filter_map(|(it, rest)| Some(Offer { rest: rest?, ..it })).collect();
        }
        self.range = self.range.start + text.len()..self.range.end + text.len();
        self.gone += text;
        self.pieces.push(if taken { Piece::Taken(text.len()) } else { Piece::Typed(text.len()) });
        if taken {
            self.characters += text.chars().count();
        }
        if self.offers[0].rest.is_empty() {
            self.stage = Stage::Complete;
        }
        true
    }

    /// So many bytes are gone: whether they are the last ones that came of it, taken back.
    fn withdrawn(&mut self, length: usize, becomes: &dyn Fn(Range<usize>, &str) -> bool) -> bool {
        let Some(kept) = self.gone.len().checked_sub(length).filter(|&kept| self.gone.is_char_boundary(kept))
        else {
            return false;
        };
        let at = self.range.start;
        if !becomes(at - length..at, "") {
            return false;
        }
        let back = self.gone.split_off(kept);
        self.offers.iter_mut().for_each(|it| it.rest.insert_str(0, &back));
        self.range = at - length..self.range.end - length;
        let mut left = length;
        while left > 0
            && let Some(piece) = self.pieces.pop()
        {
            let (bytes, make): (usize, fn(usize) -> Piece) = match piece {
                Piece::Typed(bytes) => (bytes, Piece::Typed),
                Piece::Taken(bytes) => (bytes, Piece::Taken),
            };
            let off = left.min(bytes);
            left -= off;
            if let Piece::Taken(_) = piece {
                self.characters -= back.get(left..left + off).map_or(0, |it| it.chars().count());
            }
            if bytes > off {
                self.pieces.push(make(bytes - off));
            }
        }
        self.stage = Stage::Open;
        true
    }

    /// Something else is done: the cursor has moved, the document was closed, another suggestion is shown.
    pub fn leave(&mut self) {
        let taken = self.pieces.iter().any(|piece| matches!(piece, Piece::Taken(_)));
        let fate = match self.stage {
            Stage::Over(fate) => fate,
            // Taken word by word, the last of which is a single character.
            Stage::Complete if taken => Fate::Accepted,
            Stage::Open if taken => Fate::Partly,
            Stage::Complete => Fate::Typed,
            Stage::Open if self.gone.len() >= first_word(&(self.gone.clone() + &self.offers[0].rest)) => {
                Fate::Typed
            }
            Stage::Open => Fate::Dismissed,
        };
        self.stage = Stage::Over(fate);
    }

    /// The editor says that a suggestion was taken: whether it was this one, whose last character is in the text.
    pub fn confirm(&mut self) -> bool {
        let complete = self.stage == Stage::Complete;
        if complete {
            if let Some(Piece::Typed(_)) = self.pieces.last() {
                self.characters += 1;
            }
            self.stage = Stage::Over(Fate::Accepted);
        }
        complete
    }

    /// Where it goes on.
    pub fn place(&self) -> usize {
        self.range.start
    }

    /// What became of it, once that is known, and how many characters were taken.
    pub fn fate(&self) -> Option<(Fate, usize)> {
        match self.stage {
            Stage::Over(fate) => Some((fate, self.characters)),
            Stage::Open | Stage::Complete => None,
        }
    }
}

/// The texts that are shown and offered, of which `gone` stands in the text already.
fn offers(gone: &str, rests: Vec<String>) -> Vec<Offer> {
    rests.into_iter().map(|rest| Offer { whole: gone.to_owned() + &rest, rest }).collect()
}

/// What a suggestion replaces from the cursor on, and by what, with the texts that are offered in its place: what it
/// repeats of the text before the cursor, to fit a popup's item, is no part of it.
fn placed(text: &Rope, cursor: usize, shown: &Suggestion, others: &[String]) -> (Range<usize>, Vec<String>) {
    let Range { start, end } = shown.range;
    let repeated = text.get_byte_slice(start..cursor).map(|it| it.to_string()).unwrap_or_default();
    let others = others.iter().map(String::as_str);
    match shown.text.strip_prefix(&repeated) {
        Some(rest) if end >= cursor && !rest.is_empty() => {
            let others = others.filter_map(|other| other.strip_prefix(&repeated));
            (cursor..end, [rest].into_iter().chain(others).map(str::to_owned).collect())
        }
        _ => (start..end, [shown.text.as_str()].into_iter().chain(others).map(str::to_owned).collect()),
    }
}

/// Whether `edit`, which made `after` of `before`, did what replacing `range` by `text` does, however it was put.
fn becomes(before: &Rope, edit: &Edit, after: &Rope, range: Range<usize>, text: &str) -> bool {
    let low = range.start.min(edit.range.start);
    let high = range.end.max(edit.range.end);
    if high - low > REACH || after.len_bytes() + range.len() != before.len_bytes() + text.len() {
        return false;
    }
    // Behind the two, both texts are the same; `high` there, in `after`.
    let behind = high + text.len() - range.len();
    let middle = range.start..range.start + text.len();
    let same = |old: Range<usize>, new: Range<usize>| {
        let (old, new) = (before.get_byte_slice(old), after.get_byte_slice(new));
        old.is_some() && old == new
    };
    same(low..range.start, low..range.start)
        && after.get_byte_slice(middle.clone()).is_some_and(|it| it == text)
        && same(range.end..high, middle.end..behind)
}

fn closes(opener: char, closer: char) -> bool {
    matches!((opener, closer), ('(', ')') | ('[', ']') | ('{', '}') | ('"', '"') | ('\'', '\'') | ('`', '`'))
}

/// The end of the first word of a text, in bytes: white space, and a run of word characters or one other character.
fn first_word(text: &str) -> usize {
    let word = text.trim_start();
    let end = word.find(|character| !is_word(character)).unwrap_or(word.len());
    let end = if end == 0 { word.chars().next().map_or(0, char::len_utf8) } else { end };
    text.len() - word.len() + end
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a fixture without a cursor is a broken test")]
mod tests {
    use super::*;

    /// A text, and a suggestion that is shown in it.
    struct Scene {
        text: Rope,
        life: Life,
    }

    impl Scene {
        fn new(fixture: &str, shown: &str) -> Self {
            Self::replacing(fixture, 0..0, shown, &[])
        }

        /// `range` is counted from the cursor.
        fn replacing(fixture: &str, range: Range<usize>, shown: &str, others: &[&str]) -> Self {
            let (before, after) = fixture.split_once('▮').unwrap();
            let (text, cursor) = (Rope::from(format!("{before}{after}")), before.len());
            let range = cursor + range.start..cursor + range.end;
            let others: Vec<String> = others.iter().map(|&it| it.to_owned()).collect();
            let life = Life::new(&text, cursor, &Suggestion { range, text: shown.to_owned() }, &others);
            Self { text, life }
        }

        fn edit(mut self, range: Range<usize>, text: &str) -> Self {
            let before = self.text.clone();
            let edit = Edit { range, text: text.to_owned() };
            edit.apply(&mut self.text).unwrap();
            self.life.edited(&before, &edit, &self.text);
            self
        }

        /// Types at the suggestion's place, as editors that send an insertion.
        fn insert(self, text: &str) -> Self {
            let at = self.life.place();
            self.edit(at..at, text)
        }

        fn keys(self, text: &str) -> Self {
            text.chars().fold(self, |scene, key| scene.insert(&key.to_string()))
        }

        fn left(mut self) -> (Fate, usize) {
            self.life.leave();
            self.life.fate().unwrap()
        }
    }

    #[test]
    fn all_of_the_rest_at_once_is_accepted_however_it_is_put() {
        for (range, text) in [(4..4, "foo(a)"), (2..4, "= foo(a)"), (0..5, "x = foo(a)\n")] {
            let scene = Scene::new("x = ▮\n", "foo(a)").edit(range.clone(), text);
            assert_eq!(scene.life.fate(), Some((Fate::Accepted, 6)), "{range:?}");
        }
        // A line comparison that puts the new text one character early.
        let scene = Scene::new("aa▮\n", "ab").edit(1..1, "aa").left();
        assert_eq!(scene.0, Fate::Dismissed, "another text");
        assert_eq!(Scene::new("xa▮\n", "ba").edit(1..1, "ab").life.fate(), Some((Fate::Accepted, 2)));
        let scene = Scene::new("x = ▮\n", "foo(ä)").keys("fo").insert("o(ä)");
        assert_eq!(scene.life.fate(), Some((Fate::Accepted, 4)), "what was typed was not taken");
        let scene = Scene::replacing("f(▮)\n", 0..1, "a, b);", &[]).edit(2..3, "a, b);");
        assert_eq!(scene.life.fate(), Some((Fate::Accepted, 6)), "with what it replaces");
        let scene = Scene::replacing("x.pr▮\n", 0..0, "int()", &["oxy()"]).insert("oxy()");
        assert_eq!(scene.life.fate(), Some((Fate::Accepted, 5)), "another one that was offered");
    }

    #[test]
    fn words_are_parts_and_all_of_them_are_the_whole() {
        let scene = || Scene::new("x = ▮\n", "foo(a, b)").insert("foo(").insert("a,");
        assert_eq!(scene().life.fate(), None);
        assert_eq!(scene().left(), (Fate::Partly, 6));
        assert_eq!(scene().keys("!").left(), (Fate::Partly, 6));
        assert_eq!(scene().insert(" b)").life.fate(), Some((Fate::Accepted, 9)));
        assert_eq!(
            scene().insert(" b").insert(")").left(),
            (Fate::Accepted, 8),
            "its end may have been typed"
        );
    }

    #[test]
    fn typed_along_by_a_word_is_not_dismissed_and_by_less_it_is() {
        let scene = |keys: &str| Scene::new("x = ▮\n", "foo(a)").keys(keys);
        assert_eq!(scene("foo").left(), (Fate::Typed, 0));
        assert_eq!(scene("foo(a)").left(), (Fate::Typed, 0));
        assert_eq!(scene("foob").left(), (Fate::Typed, 0));
        assert_eq!(scene("fob").left(), (Fate::Dismissed, 0));
        assert_eq!(scene("b").left(), (Fate::Dismissed, 0));
        let block = Scene::new("if x:▮\n", "\n    go()\n").insert("\n    ");
        assert_eq!(block.left(), (Fate::Dismissed, 0), "a new line with its indentation is one key");
    }

    #[test]
    fn typed_in_another_style_it_is_the_same_one() {
        let scene = || Scene::new("x = ▮\n", "f(\"a\", b + 1)").keys("f('a',b+");
        assert_eq!(scene().life.fate(), None);
        let mut shown = scene();
        let at = shown.life.place();
        let rest = Suggestion { range: at..at, text: "1)".to_owned() };
        assert!(shown.life.renew(&shown.text, at, &rest, &[]), "shown again, it is not a new one");
        assert_eq!(shown.insert("1)").life.fate(), Some((Fate::Accepted, 2)));
        assert_eq!(scene().left(), (Fate::Typed, 0));
        assert_eq!(Scene::new("x = ▮\n", "f(\"a\")").keys("f(").insert("''").keys("a").life.fate(), None);
        assert_eq!(Scene::new("x = ▮\n", "f(a)").keys("g").life.fate(), Some((Fate::Dismissed, 0)));
    }

    #[test]
    fn brackets_that_close_by_themselves_are_typed_along() {
        let at_once = Scene::new("x = ▮\n", "f(a)").keys("f").insert("()");
        assert_eq!(at_once.life.fate(), None);
        let behind = Scene::new("x = ▮\n", "f(a)").keys("f(").insert(")");
        assert_eq!(behind.life.fate(), None);
        assert_eq!(behind.keys("a").left(), (Fate::Typed, 0));
    }

    #[test]
    fn backspace_goes_back_and_beyond_the_beginning_ends_it() {
        let scene = || Scene::new("x = ▮\n", "foo(ä)").keys("fo").insert("o(ä").edit(8..10, "");
        assert_eq!(scene().life.fate(), None);
        assert_eq!(scene().left(), (Fate::Partly, 2));
        assert_eq!(scene().edit(5..8, "").left(), (Fate::Dismissed, 0), "only a letter of it is left");
        assert_eq!(scene().edit(4..8, "").insert("foo(ä)").life.fate(), Some((Fate::Accepted, 6)));
        assert_eq!(scene().edit(3..8, "").life.fate(), Some((Fate::Partly, 2)), "beyond its beginning");
        assert_eq!(Scene::new("x = ▮\n", "foo").edit(3..4, "").life.fate(), Some((Fate::Dismissed, 0)));
    }

    #[test]
    fn an_edit_elsewhere_ends_it_and_one_that_changes_nothing_does_not() {
        assert_eq!(Scene::new("x = ▮\nend", "foo").edit(5..6, "E").life.fate(), Some((Fate::Dismissed, 0)));
        assert_eq!(Scene::new("x = ▮\nend", "foo").edit(0..3, "x =").life.fate(), None);
        assert_eq!(Scene::new("x = ▮\nend", "foo").edit(2..2, "foo").life.fate(), Some((Fate::Dismissed, 0)));
    }

    #[test]
    fn shown_again_it_is_the_same_one_and_something_else_is_not() {
        let renew = |scene: &mut Scene, shown: &str| {
            let at = scene.life.place();
            let shown = Suggestion { range: at..at, text: shown.to_owned() };
            scene.life.renew(&scene.text, at, &shown, &[])
        };
        let mut scene = Scene::new("x = ▮\n", "foo");
        assert!(renew(&mut scene, "foo(a)"), "grown");
        assert!(renew(&mut scene, "bar(a)"), "refined where nothing was typed");
        let mut scene = scene.keys("b");
        assert!(renew(&mut scene, "ar"), "typed along");
        assert!(renew(&mut scene, "ar(a, b)"));
        let mut scene = scene.keys("ar");
        assert!(!renew(&mut scene, "rier"), "something else");
        let other = Suggestion { range: 0..0, text: "(a, b)".to_owned() };
        assert!(!scene.life.renew(&scene.text, 0, &other, &[]), "somewhere else");
        assert_eq!(scene.insert("(a, b)").life.fate(), Some((Fate::Accepted, 6)));
    }

    #[test]
    fn one_that_extends_a_popups_item_begins_at_the_cursor() {
        let text = Rope::from("x.pri\n");
        let shown = Suggestion { range: 2..5, text: "print(a)".to_owned() };
        let scene = || Scene { text: text.clone(), life: Life::new(&text, 5, &shown, &[]) };
        assert_eq!(scene().edit(2..5, "print(a)").life.fate(), Some((Fate::Accepted, 5)));
        assert_eq!(scene().edit(2..5, "print").left(), (Fate::Partly, 2));
        let corrected = Suggestion { range: 2..5, text: "PRINT(a)".to_owned() };
        let life = Life::new(&text, 5, &corrected, &[]);
        let scene = Scene { text: text.clone(), life }.edit(2..5, "PRINT(a)");
        assert_eq!(scene.life.fate(), Some((Fate::Accepted, 8)));
    }

    #[test]
    fn a_single_character_is_typed_unless_the_editor_says_that_it_was_taken() {
        let scene = || Scene::new("f(a▮\n", ")").insert(")");
        assert_eq!(scene().left(), (Fate::Typed, 0));
        let mut taken = scene();
        assert!(taken.life.confirm() && !taken.life.confirm());
        assert_eq!(taken.life.fate(), Some((Fate::Accepted, 1)));
        assert!(!Scene::new("f(a▮\n", ")").life.confirm());
    }
}
