//! Fill-in-the-middle formats, one row per format, and the best prompt form of each known model.

use taper_engine::{EngineInfo, TokenId, Tokenizer};

use super::calibration::Calibration;
use super::chat::ChatFormat;

/// One fill-in-the-middle format, by the texts of its special tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    /// The name of the format.
    pub name: &'static str,
    /// The token before the text before the cursor.
    pub prefix: &'static str,
    /// The token before the text after the cursor.
    pub suffix: &'static str,
    /// The token before the output; empty if the output follows directly.
    pub middle: &'static str,
    /// Which segment comes first.
    pub order: SegmentOrder,
    /// How the path is given.
    pub path: PathForm,
    /// A word that the model's name must have: another row, or a model that was not trained to fill in, has the same
    /// tokens.
    pub model_name_part: Option<&'static str>,
}

/// The order of the two segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentOrder {
    /// Prefix, suffix, middle (PSM).
    PrefixFirst,
    /// Suffix, prefix, middle (SPM).
    SuffixFirst,
}

/// How a format names the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathForm {
    /// A special token, the path and a line break, before the segments.
    Token(&'static str),
    /// The same, as the first line of the prefix segment.
    InPrefix(&'static str),
    /// No token: a comment line at the start of the prefix.
    Comment,
}

/// The formats in the order in which they are tried: the first whose tokens are all in the vocabulary wins.
///
/// Sources: the model cards and technical reports of Qwen2.5-Coder (arXiv 2409.12186), StarCoder2 (arXiv 2402.19173),
/// Code Llama (arXiv 2308.12950), DeepSeek-Coder (arXiv 2401.14196), CodeGemma (arXiv 2406.11409), Codestral, Granite
/// Code (arXiv 2405.04324), Mellum (arXiv 2510.05788) and Seed-Coder (arXiv 2506.03524).
pub static TEMPLATES: &[Template] = &[
    Template {
        name: "qwen",
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: "<|fim_middle|>",
        order: SegmentOrder::PrefixFirst,
        path: PathForm::Token("<|file_sep|>"),
        model_name_part: None,
    },
    Template {
        name: "granite",
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: "<|fim_middle|>",
        order: SegmentOrder::PrefixFirst,
        path: PathForm::InPrefix("<|filename|>"),
        model_name_part: None,
    },
    Template {
        name: "codegemma",
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: "<|fim_middle|>",
        order: SegmentOrder::PrefixFirst,
        path: PathForm::Comment,
        model_name_part: None,
    },
    Template {
        name: "mellum",
        prefix: "<fim_prefix>",
        suffix: "<fim_suffix>",
        middle: "<fim_middle>",
        order: SegmentOrder::SuffixFirst,
        path: PathForm::Token("<filename>"),
        model_name_part: Some("mellum"),
    },
    Template {
        name: "starcoder2",
        prefix: "<fim_prefix>",
        suffix: "<fim_suffix>",
        middle: "<fim_middle>",
        order: SegmentOrder::PrefixFirst,
        path: PathForm::Token("<file_sep>"),
        model_name_part: None,
    },
    Template {
        name: "starcoder",
        prefix: "<fim_prefix>",
        suffix: "<fim_suffix>",
        middle: "<fim_middle>",
        order: SegmentOrder::PrefixFirst,
        path: PathForm::InPrefix("<filename>"),
        model_name_part: None,
    },
    Template {
        name: "fim-plain",
        prefix: "<fim_prefix>",
        suffix: "<fim_suffix>",
        middle: "<fim_middle>",
        order: SegmentOrder::PrefixFirst,
        path: PathForm::Comment,
        model_name_part: None,
    },
    Template {
        name: "santacoder",
        prefix: "<fim-prefix>",
        suffix: "<fim-suffix>",
        middle: "<fim-middle>",
        order: SegmentOrder::PrefixFirst,
        path: PathForm::Comment,
        model_name_part: None,
    },
    Template {
        name: "deepseek-coder",
        prefix: "<｜fim▁begin｜>",
        suffix: "<｜fim▁hole｜>",
        middle: "<｜fim▁end｜>",
        order: SegmentOrder::PrefixFirst,
        path: PathForm::Comment,
        model_name_part: None,
    },
    Template {
        name: "codellama",
        prefix: "▁<PRE>",
        suffix: "▁<SUF>",
        middle: "▁<MID>",
        order: SegmentOrder::PrefixFirst,
        path: PathForm::Comment,
        model_name_part: None,
    },
    Template {
        name: "seed-coder",
        prefix: "<[fim-prefix]>",
        suffix: "<[fim-suffix]>",
        middle: "<[fim-middle]>",
        order: SegmentOrder::SuffixFirst,
        path: PathForm::Comment,
        model_name_part: None,
    },
    Template {
        name: "codestral",
        prefix: "[PREFIX]",
        suffix: "[SUFFIX]",
        middle: "",
        order: SegmentOrder::SuffixFirst,
        path: PathForm::Comment,
        // Every model with Mistral's third vocabulary or Tekken has these tokens.
        model_name_part: Some("codestral"),
    },
];

/// The prompt form of a model: the order and amount of text. A measured property of the model, not of its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptForm {
    /// The order of the text.
    pub layout: PromptLayout,
    /// Whether the partial word before the cursor is cut back and forced (token healing).
    pub heal: bool,
    /// Whether the prompt has the path and the language.
    pub header: bool,
    /// Maximum tokens after the cursor, unless the user sets it.
    pub suffix: usize,
    /// Maximum tokens of the project's other files, unless the user sets it.
    pub snippets: usize,
}

/// The order of the text in the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptLayout {
    /// All text before the cursor in the prefix segment.
    Plain,
    /// The last lines before the cursor after the middle token, at least `lines`. They grow while the user types, so
    /// that everything before them stays in the KV cache.
    Anchored {
        /// Lines after the middle token, not counting the cursor's own.
        lines: usize,
    },
    /// Only the text before the cursor, without the fill-in tokens.
    PrefixOnly,
    /// The text before the last lines and the text after the cursor in a message to the model, by the chat template of
    /// its file. The model's answer begins with the last lines.
    Chat {
        /// As for `Anchored`.
        lines: usize,
    },
}

/// A row of measured forms: all words must occur in the model's name, in lower case.
struct FormRow {
    words: &'static [&'static str],
    form: PromptForm,
}

/// Measured on the `real_*_word` tasks in four languages, or known from a model's report. The first matching row wins.
static MEASURED_FORMS: &[FormRow] = &[
    // The official 0.5B instruct file was quantized twice and lost much of its fill-in training: continuing the last
    // lines after the middle token is much more accurate than the plain layout. More lines, or another suffix length,
    // make no difference (`benches/quality/tune-0.5b.txt`). Other files do not help it (`benches/quality/README.md`).
    FormRow {
        words: &["qwen2.5-coder", "0.5b", "instruct"],
        form: PromptForm {
            layout: PromptLayout::Anchored { lines: 10 },
            heal: true,
            header: true,
            suffix: 128,
            snippets: 0,
        },
    },
    // Asked for the code between two texts, it finds the expected line more often than by continuing the first one: on 48
    // tasks, and only if the partial word is healed.
    FormRow {
        words: &["smollm2", "135m"],
        form: PromptForm {
            layout: PromptLayout::Chat { lines: 4 },
            heal: true,
            header: true,
            suffix: 128,
            snippets: 0,
        },
    },
    // These have the tokens from the vocabularies that theirs are made of, GPT-4's and StarCoder's, and were not trained
    // with them.
    FormRow { words: &["phi-4"], form: PREFIX_ONLY_FORM },
    FormRow { words: &["granite-3.0"], form: PREFIX_ONLY_FORM },
    FormRow { words: &["granite-3.1"], form: PREFIX_ONLY_FORM },
    FormRow { words: &["granite-3.2"], form: PREFIX_ONLY_FORM },
];

/// For models whose fill-in training is intact, such as Qwen2.5-Coder-1.5B. They benefit from the text after the
/// cursor, and from definitions in other files (`benches/quality/README.md`).
const DEFAULT_FORM: PromptForm =
    PromptForm { layout: PromptLayout::Plain, heal: false, header: true, suffix: 400, snippets: 512 };

/// Without fill-in training the model can only continue the text before the cursor.
const PREFIX_ONLY_FORM: PromptForm =
    PromptForm { layout: PromptLayout::PrefixOnly, heal: true, header: true, suffix: 0, snippets: 0 };

/// The prompt format and form of one loaded model, chosen once at load.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The fill-in format and its token ids; `None` for a model without FIM tokens.
    pub template: Option<ResolvedTemplate>,
    /// The messages by the chat template of the model's file; `None` without one.
    pub chat: Option<ChatFormat>,
    /// The layout.
    pub form: PromptForm,
    /// How to turn its token probabilities into the probability of a correct line.
    pub calibration: Calibration,
    /// The token that begins every prompt, if the model needs one.
    pub bos: Option<TokenId>,
    /// The engine's context size in tokens.
    pub context: usize,
}

/// A template with the ids of its tokens in one vocabulary.
#[derive(Debug, Clone)]
pub struct ResolvedTemplate {
    /// The row.
    pub template: &'static Template,
    /// Id of [`Template::prefix`].
    pub prefix: TokenId,
    /// Id of [`Template::suffix`].
    pub suffix: TokenId,
    /// Id of [`Template::middle`], unless that is empty.
    pub middle: Option<TokenId>,
    /// Id of the path's token, if the row has one.
    pub path: Option<TokenId>,
}

/// How the texts of a prompt are joined.
#[derive(Debug, Clone, Copy)]
pub enum TextFormat<'a> {
    /// The text before the cursor alone.
    Prefix,
    /// A fill-in format.
    FillIn(&'a ResolvedTemplate),
    /// Messages.
    Chat(&'a ChatFormat),
}

impl Profile {
    /// The profile of a loaded model: the template follows from the tokens in its vocabulary, the form from the
    /// model's measured row.
    pub fn for_model(about: &EngineInfo, tokens: &Tokenizer) -> Self {
        // Model files spell names with blanks (`Qwen2.5 Coder 0.5B Instruct`), the table with hyphens.
        let name = about.model.to_lowercase().replace([' ', '_'], "-");
        let template = TEMPLATES
            .iter()
            .find_map(|template| resolve_template(template, &name, &|text| tokens.special_id(text)));
        let chat = ChatFormat::from_vocabulary(tokens);
        let form = best_form(&name, template.is_some(), chat.is_some());
        let calibration = Calibration::for_model(&name);
        Self { template, chat, form, calibration, bos: tokens.bos(), context: about.context }
    }

    /// How the texts are joined.
    pub fn format(&self) -> TextFormat<'_> {
        let format = match self.form.layout {
            PromptLayout::Plain | PromptLayout::Anchored { .. } => {
                self.template.as_ref().map(TextFormat::FillIn)
            }
            PromptLayout::PrefixOnly => None,
            PromptLayout::Chat { .. } => self.chat.as_ref().map(TextFormat::Chat),
        };
        format.unwrap_or(TextFormat::Prefix)
    }

    /// The token before each file in a prompt of several files, if the format has one and the model was trained with
    /// it.
    pub fn file_token(&self) -> Option<TokenId> {
        let TextFormat::FillIn(it) = self.format() else { return None };
        it.path.filter(|_| matches!(it.template.path, PathForm::Token(_)))
    }

    /// The model's default token budget for other files; `None` if the format has no place for them.
    pub fn snippet_tokens(&self) -> Option<usize> {
        self.file_token().map(|_| self.form.snippets)
    }

    /// One line for `doctor`: the format and the form.
    pub fn describe(&self) -> String {
        let format = match self.format() {
            TextFormat::Prefix if self.template.is_none() => "prefix only (no FIM tokens)",
            TextFormat::Prefix => "prefix only",
            TextFormat::FillIn(it) => it.template.name,
            TextFormat::Chat(_) => "chat",
        };
        let layout = match self.form.layout {
            PromptLayout::Plain | PromptLayout::PrefixOnly => "plain order".to_owned(),
            PromptLayout::Anchored { lines } => format!("last {lines} lines after the middle token"),
            PromptLayout::Chat { lines } => format!("last {lines} lines in the answer"),
        };
        let heal = if self.form.heal { "token healing" } else { "no token healing" };
        let header = if self.form.header { "with path" } else { "no path" };
        format!("{format}, {layout}, {heal}, {header}")
    }
}

/// The form of the model's row, if the model has what the row needs.
fn best_form(name: &str, fills_in: bool, chats: bool) -> PromptForm {
    let row = MEASURED_FORMS.iter().find(|row| row.words.iter().all(|word| name.contains(word)));
    let form = row.map(|row| row.form).filter(|form| match form.layout {
        PromptLayout::Plain | PromptLayout::Anchored { .. } => fills_in,
        PromptLayout::PrefixOnly => true,
        PromptLayout::Chat { .. } => chats,
    });
    form.unwrap_or(if fills_in { DEFAULT_FORM } else { PREFIX_ONLY_FORM })
}

fn resolve_template(
    template: &'static Template,
    name: &str,
    id: &dyn Fn(&str) -> Option<TokenId>,
) -> Option<ResolvedTemplate> {
    if template.model_name_part.is_some_and(|word| !name.contains(word)) {
        return None;
    }
    let path = match template.path {
        PathForm::Token(text) | PathForm::InPrefix(text) => Some(id(text)?),
        PathForm::Comment => None,
    };
    Some(ResolvedTemplate {
        template,
        prefix: id(template.prefix)?,
        suffix: id(template.suffix)?,
        middle: if template.middle.is_empty() { None } else { Some(id(template.middle)?) },
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen_template(vocabulary: &[&str], name: &str) -> Option<&'static str> {
        let id = |text: &str| vocabulary.iter().position(|it| *it == text).map(|at| at as TokenId);
        TEMPLATES.iter().find_map(|template| resolve_template(template, name, &id)).map(|it| it.template.name)
    }

    #[test]
    fn template_is_chosen_by_vocabulary_tokens() {
        let qwen = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>"];
        assert_eq!(chosen_template(&qwen, "some fine-tune"), Some("qwen"));
        assert_eq!(chosen_template(&qwen[..3], "codegemma-2b"), Some("codegemma"));
        assert_eq!(chosen_template(&qwen[..2], "qwen2.5-coder"), None);
        let granite = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|filename|>"];
        assert_eq!(chosen_template(&granite, "granite"), Some("granite"));
        let star = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<filename>", "<file_sep>"];
        assert_eq!(chosen_template(&star, "starcoder2"), Some("starcoder2"));
        assert_eq!(chosen_template(&star[..4], "starcoder"), Some("starcoder"));
        assert_eq!(chosen_template(&star[..4], "mellum-4b-base"), Some("mellum"));
        assert_eq!(chosen_template(&star[..3], "granite-3b-code"), Some("fim-plain"));
        assert_eq!(chosen_template(&["▁<PRE>", "▁<SUF>", "▁<MID>"], "codellama"), Some("codellama"));
        assert_eq!(chosen_template(&["[PREFIX]", "[SUFFIX]"], "codestral"), Some("codestral"));
        assert_eq!(
            chosen_template(&["<fim-prefix>", "<fim-suffix>", "<fim-middle>"], ""),
            Some("santacoder")
        );
        let deepseek = ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"];
        assert_eq!(chosen_template(&deepseek, ""), Some("deepseek-coder"));
        assert_eq!(chosen_template(&["<s>", "</s>"], "smollm2"), None);
    }

    #[test]
    fn tokens_without_training_choose_no_template() {
        // Plain Gemma files have CodeGemma's ids in their metadata, but other texts there.
        assert_eq!(chosen_template(&["<unused60>", "<unused61>", "<unused62>"], "gemma-2b"), None);
        let mistral = ["[PREFIX]", "[MIDDLE]", "[SUFFIX]"];
        assert_eq!(chosen_template(&mistral, "ministral-8b-instruct-2410"), None);
        let seed = ["<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"];
        assert_eq!(chosen_template(&seed, "seed-coder-8b-base"), Some("seed-coder"));
        let phi = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"];
        assert_eq!(best_form("phi-4", chosen_template(&phi, "phi-4").is_some(), true), PREFIX_ONLY_FORM);
    }

    #[test]
    fn measured_form_is_found_by_model_name() {
        let form = |name| best_form(name, true, false);
        assert_eq!(form("qwen2.5-coder-0.5b-instruct").layout, PromptLayout::Anchored { lines: 10 });
        assert_eq!(form("qwen2.5-coder-1.5b-instruct"), DEFAULT_FORM);
        assert_eq!(form("qwen2.5-coder-0.5b"), DEFAULT_FORM, "the base model has kept its training");
        assert_eq!(best_form("smollm2-135m", false, true).layout, PromptLayout::Chat { lines: 4 });
        assert_eq!(
            best_form("smollm2-135m", false, false),
            PREFIX_ONLY_FORM,
            "a base model has no chat template"
        );
        // A fine-tune without the tokens or the template that the row needs.
        assert_eq!(best_form("qwen2.5-coder-0.5b-instruct", false, true), PREFIX_ONLY_FORM);
        assert_eq!(best_form("llama-3.1-8b-instruct", false, true), PREFIX_ONLY_FORM);
    }
}
