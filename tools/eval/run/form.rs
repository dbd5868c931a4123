//! Arguments that change how the model is asked and how much is suggested.

use std::str::FromStr;

use clap::ValueEnum;
use taper_engine::Engine;

use taper::completion::confidence_filter::Eagerness;
use taper::completion::{ExtentSetting, Options};
use taper::prompt::template::{Profile, PromptForm, PromptLayout};

/// Changes to the model's row and to the default settings.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct FormArgs {
    /// The order of the prompt's parts: plain, anchored:LINES after the middle token, prefix alone, or chat:LINES in
    /// the answer.
    #[arg(long, value_name = "LAYOUT")]
    layout: Option<LayoutArg>,
    /// Whether to heal the partial word before the cursor.
    #[arg(long, value_name = "BOOL")]
    heal: Option<bool>,
    /// Whether the prompt has the path.
    #[arg(long, value_name = "BOOL")]
    header: Option<bool>,
    /// Maximum tokens before the cursor.
    #[arg(long, value_name = "TOKENS")]
    prefix_tokens: Option<usize>,
    /// Maximum tokens after the cursor.
    #[arg(long, value_name = "TOKENS")]
    suffix_tokens: Option<usize>,
    /// Maximum tokens of other files.
    #[arg(long, value_name = "TOKENS")]
    snippet_tokens: Option<usize>,
    /// Maximum lines of a suggestion.
    #[arg(long, value_name = "N")]
    max_lines: Option<usize>,
    /// Maximum decoded tokens.
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<usize>,
    /// How much to suggest.
    #[arg(long, value_name = "EXTENT")]
    suggest: Option<ExtentArg>,
    /// How confident the model must be to show a suggestion; `high` shows all.
    #[arg(long, value_name = "EAGERNESS", default_value = "high")]
    eagerness: EagernessArg,
}

#[derive(Debug, Clone, Copy)]
struct LayoutArg(PromptLayout);

impl FromStr for LayoutArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lines = text.split_once(':').and_then(|(name, lines)| Some((name, lines.parse().ok()?)));
        match (text, lines) {
            ("plain", _) => Ok(Self(PromptLayout::Plain)),
            ("prefix", _) => Ok(Self(PromptLayout::PrefixOnly)),
            (_, Some(("anchored", lines))) => Ok(Self(PromptLayout::Anchored { lines })),
            (_, Some(("chat", lines))) => Ok(Self(PromptLayout::Chat { lines })),
            _ => Err("write `plain`, `prefix`, or `anchored:` or `chat:` and a number of lines".to_owned()),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExtentArg {
    Line,
    Auto,
    Block,
}

/// [`Eagerness`] as an argument.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum EagernessArg {
    Low,
    Medium,
    #[default]
    High,
}

impl FormArgs {
    /// The loaded model's profile with these changes.
    pub(super) fn profile(&self, engine: &dyn Engine) -> Profile {
        let mut profile = Profile::for_model(engine.engine_info(), engine.tokenizer());
        let PromptForm { layout, heal, header, suffix, snippets } = profile.form;
        profile.form = PromptForm {
            layout: self.layout.map_or(layout, |it| it.0),
            heal: self.heal.unwrap_or(heal),
            header: self.header.unwrap_or(header),
            suffix: self.suffix_tokens.unwrap_or(suffix),
            snippets: self.snippet_tokens.unwrap_or(snippets),
        };
        profile
    }

    /// The default settings with these changes.
    pub(super) fn options(&self) -> Options {
        let default = Options::default();
        Options {
            max_lines: self.max_lines.unwrap_or(default.max_lines),
            max_tokens: self.max_tokens.unwrap_or(default.max_tokens),
            extent: match self.suggest {
                None => default.extent,
                Some(ExtentArg::Line) => ExtentSetting::Line,
                Some(ExtentArg::Auto) => ExtentSetting::Auto,
                Some(ExtentArg::Block) => ExtentSetting::Block,
            },
            eagerness: match self.eagerness {
                EagernessArg::Low => Eagerness::Low,
                EagernessArg::Medium => Eagerness::Medium,
                EagernessArg::High => Eagerness::High,
            },
            prefix_tokens: self.prefix_tokens.unwrap_or(default.prefix_tokens),
            suffix_tokens: None,
            snippet_tokens: None,
            idle: default.idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_parsed() {
        let read = |text: &str| text.parse::<LayoutArg>().map(|it| it.0);
        assert_eq!(read("plain"), Ok(PromptLayout::Plain));
        assert_eq!(read("anchored:10"), Ok(PromptLayout::Anchored { lines: 10 }));
        assert_eq!(read("prefix"), Ok(PromptLayout::PrefixOnly));
        assert_eq!(read("chat:4"), Ok(PromptLayout::Chat { lines: 4 }));
        for wrong in ["", "anchored", "anchored:", "anchored:-1", "plain:3", "chat"] {
            assert!(read(wrong).is_err_and(|it| it.contains("anchored:")), "{wrong}");
        }
    }
}
