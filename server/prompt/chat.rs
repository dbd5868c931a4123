//! Asks an instruct model to fill in, by messages in the chat template of its file.
//!
//! The template is a program in a file from a stranger: its length, its work and memory, and its output are limited. It
//! runs once, at load. The messages name the two texts by placeholders, so that the text of a file never reaches it, and
//! typing extends the prompt at its end as in any other format.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use taper_engine::{TokenId, Tokenizer};

/// Maximum length of a template in bytes. The longest ones, with tools and reasoning, have 20,000.
const MAX_TEMPLATE_BYTES: usize = 64 * 1024;
/// Maximum instructions of a template plus one for each 64 bytes that it creates. Usual templates take some hundreds.
const TEMPLATE_FUEL: u64 = 20_000;
/// Maximum length of the rendered messages in bytes.
const MAX_RENDERED_BYTES: usize = 16 * 1024;

/// In place of the text before the anchor, and of the text after the cursor: characters for private use.
const PREFIX_MARK: char = '\u{e0f0}';
const SUFFIX_MARK: char = '\u{e0f1}';

/// For templates that print the date. It must not change, since the prompt is cached, and does not matter for code.
const TEMPLATE_DATE: &str = "26 Jul 2024";

/// A conversation about a file, as the tokens around its texts: opening, text before the anchor, between, text after the
/// cursor, closing. The last one opens the model's own message, which begins with the lines after the anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatFormat {
    /// Before the text before the anchor; without the token that begins every prompt.
    pub opening: Vec<TokenId>,
    /// Before the text after the cursor.
    pub between: Vec<TokenId>,
    /// Before the lines that end at the cursor.
    pub closing: Vec<TokenId>,
}

impl ChatFormat {
    /// The format by the chat template of the model's file; `None` if there is none, or none that works here.
    pub fn from_vocabulary(tokens: &Tokenizer) -> Option<Self> {
        let template = tokens.chat_template()?;
        let name = |id: Option<TokenId>| id.map_or_else(String::new, |id| tokens.render(&[id]));
        let rendered = match render_messages(template, &name(tokens.bos()), &name(tokens.eos())) {
            Ok(rendered) => rendered,
            Err(error) => {
                tracing::info!("the chat template of the model is not used: {error:#}");
                return None;
            }
        };
        let (opening, rest) = rendered.split_once(PREFIX_MARK)?;
        let (between, closing) = rest.split_once(SUFFIX_MARK)?;
        let mut opening = tokens.encode_with_specials(opening);
        if tokens.bos().is_some() && opening.first().copied() == tokens.bos() {
            opening.remove(0);
        }
        let (between, closing) = (tokens.encode_with_specials(between), tokens.encode_with_specials(closing));
        Some(Self { opening, between, closing })
    }

    /// Number of tokens around the texts.
    pub fn token_count(&self) -> usize {
        self.opening.len() + self.between.len() + self.closing.len()
    }
}

/// The user's message.
fn request_text() -> String {
    format!(
        "Below are the beginning and the end of a source file. Write the code between them. Reply with the code alone, \
         without explanations.\n\nBeginning:\n```\n{PREFIX_MARK}\n```\n\nEnd:\n```\n{SUFFIX_MARK}\n```"
    )
}

fn render_messages(template: &str, bos: &str, eos: &str) -> Result<String, Error> {
    let too_long = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("{what} is too long"));
    if template.len() > MAX_TEMPLATE_BYTES {
        return Err(too_long("it"));
    }
    let mut environment = Environment::new();
    environment.set_fuel(Some(TEMPLATE_FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    // As in the `transformers` library, for which the templates are written.
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |_: String| TEMPLATE_DATE);
    let rendered = environment.render_str(
        template,
        context! {
            messages => [context! { role => "user", content => request_text() }],
            add_generation_prompt => true,
            bos_token => bos,
            eos_token => eos,
            // Models that can reason first answer at once.
            enable_thinking => false,
        },
    )?;
    if rendered.len() > MAX_RENDERED_BYTES {
        return Err(too_long("what it renders"));
    }
    Ok(rendered)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + \
        message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
        {% endif %}";

    fn rendered_around_marks(template: &str) -> Vec<String> {
        let rendered = render_messages(template, "<s>", "</s>").unwrap();
        rendered.split([PREFIX_MARK, SUFFIX_MARK]).map(str::to_owned).collect()
    }

    #[test]
    fn messages_are_rendered_by_the_file_s_template() {
        let parts = rendered_around_marks(CHATML);
        assert!(parts[0].starts_with("<|im_start|>user\nBelow"), "{parts:?}");
        assert_eq!(parts[2], "\n```<|im_end|>\n<|im_start|>assistant\n");

        let gemma = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not \
            supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 \
            == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{{ '<start_of_turn>' + \
            message['role'] + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
            {% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}";
        let parts = rendered_around_marks(gemma);
        assert!(parts[0].starts_with("<s><start_of_turn>user\nBelow"), "{parts:?}");
        assert_eq!(parts[2], "\n```<end_of_turn>\n<start_of_turn>model\n");

        let python = "{%- set ns = namespace(n=0) -%}{%- for m in messages if m.get('role') == 'user' %}\n  \
            {%- set ns.n = ns.n + 1 %}{{ '[INST] ' + m.content.strip().split('@@')[-1] + ' [/INST]' }}{% endfor %}\
            {{ strftime_now('%d') }}{{ tools is defined }}{{ ns.n }}{{ messages | tojson | length > 10 }}";
        assert_eq!(rendered_around_marks(python)[2], format!("\n``` [/INST]{TEMPLATE_DATE}False1True"));
    }

    #[test]
    fn hostile_templates_are_refused() {
        let doubling = "{% set x = 'xxxxxxxx' %}".to_owned() + &"{% set x = x ~ x %}".repeat(40) + "{{ x }}";
        let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        let recursive = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        let nested = "{{ ".to_owned() + &"(".repeat(50_000);
        let long = "{{ 'x' * 20000 }}";
        let includes = "{% include '/etc/passwd' %}";
        let whole = "a".repeat(MAX_TEMPLATE_BYTES + 1);
        for template in [
            &doubling,
            endless,
            recursive,
            &nested,
            long,
            includes,
            &whole,
            "{{ raise_exception('no') }}",
            "{% x",
        ] {
            assert!(render_messages(template, "", "").is_err(), "{:?}", &template[..template.len().min(60)]);
        }
    }

    #[test]
    fn template_without_the_texts_gives_no_format() {
        let format = |template: &str| {
            let tokens = Tokenizer::bytes_only().with_chat_template(template);
            ChatFormat::from_vocabulary(&tokens)
        };
        let found = format(CHATML).unwrap();
        let tokens = Tokenizer::bytes_only();
        assert_eq!(found.opening.first().copied(), tokens.special_id("<|im_start|>"));
        assert!(tokens.render(&found.closing).ends_with("<|im_end|>\n<|im_start|>assistant\n"));
        assert_eq!(format("{{ messages[0].content | upper | replace('\u{e0f0}', '') }}"), None);
        assert_eq!(format("no messages"), None);
        assert_eq!(format("{{ nothing.of.this }}"), None);
        assert_eq!(ChatFormat::from_vocabulary(&tokens), None);
    }
}
