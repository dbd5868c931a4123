//! The rows of the language table.

mod kinds;

use crate::{BlockStyle, Language, NodeKinds, scanners};

/// The empty row: no grammar, no comments, no blocks.
const EMPTY_LANGUAGE: Language = Language {
    name: "",
    aliases: &[],
    extensions: &[],
    file_names: &[],
    line_comment: "",
    block_comment: None,
    quotes: &['"', '\''],
    blocks: BlockStyle::None,
    opening_words: &[],
    opening_ends: &[],
    opening_tag: "",
    grammar: None,
    kinds: NodeKinds::NONE,
};

/// Line comments with `//`, blocks in braces, comments between `/*` and `*/`.
const BRACE_LANGUAGE: Language = Language {
    line_comment: "//",
    block_comment: Some(("/*", "*/")),
    blocks: BlockStyle::Braces,
    ..EMPTY_LANGUAGE
};

/// Line comments with `#`.
const HASH_COMMENT_LANGUAGE: Language = Language { line_comment: "#", ..EMPTY_LANGUAGE };

/// Every language that taper knows. Others also get suggestions, but without a tree.
pub const LANGUAGES: &[Language] = &[
    Language {
        name: "python",
        aliases: &["py", "python3"],
        extensions: &["py", "pyi", "pyw"],
        file_names: &["SConstruct", "SConscript"],
        blocks: BlockStyle::Indentation,
        opening_words: &[
            "def", "class", "if", "elif", "else", "for", "while", "with", "try", "except", "finally",
            "match", "case", "async",
        ],
        grammar: Some(scanners::python),
        kinds: kinds::PYTHON,
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "rust",
        aliases: &["rs"],
        extensions: &["rs"],
        // A `'` may begin a lifetime.
        quotes: &['"'],
        grammar: Some(|| tree_sitter_rust::LANGUAGE.into()),
        kinds: kinds::RUST,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "javascript",
        aliases: &["js", "node"],
        extensions: &["js", "mjs", "cjs"],
        quotes: &['"', '\'', '`'],
        grammar: Some(|| tree_sitter_javascript::LANGUAGE.into()),
        kinds: kinds::JAVASCRIPT,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "javascriptreact",
        aliases: &["jsx", "javascript.jsx"],
        extensions: &["jsx"],
        // An apostrophe is plain text between tags.
        quotes: &['"', '`'],
        grammar: Some(|| tree_sitter_javascript::LANGUAGE.into()),
        kinds: kinds::JAVASCRIPT,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "typescript",
        aliases: &["ts"],
        extensions: &["ts", "mts", "cts"],
        quotes: &['"', '\'', '`'],
        grammar: Some(|| tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into()),
        kinds: kinds::TYPESCRIPT,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "typescriptreact",
        aliases: &["tsx", "typescript.tsx"],
        extensions: &["tsx"],
        quotes: &['"', '`'],
        grammar: Some(|| tree_sitter_typescript::LANGUAGE_TSX.into()),
        kinds: kinds::TYPESCRIPT,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "go",
        aliases: &["golang"],
        extensions: &["go"],
        quotes: &['"', '\'', '`'],
        grammar: Some(|| tree_sitter_go::LANGUAGE.into()),
        kinds: kinds::GO,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "java",
        extensions: &["java"],
        grammar: Some(|| tree_sitter_java::LANGUAGE.into()),
        kinds: kinds::JAVA,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "c",
        extensions: &["c", "h"],
        grammar: Some(|| tree_sitter_c::LANGUAGE.into()),
        kinds: kinds::C,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "cpp",
        aliases: &["c++", "cxx", "cuda", "cuda-cpp"],
        extensions: &["cpp", "cc", "cxx", "c++", "hpp", "hh", "hxx", "h++", "ipp", "inl", "cu", "cuh"],
        grammar: Some(|| tree_sitter_cpp::LANGUAGE.into()),
        kinds: kinds::CPP,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "csharp",
        aliases: &["cs", "c#", "c_sharp", "c-sharp"],
        extensions: &["cs", "csx"],
        grammar: Some(|| tree_sitter_c_sharp::LANGUAGE.into()),
        kinds: kinds::CSHARP,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "ruby",
        aliases: &["rb"],
        extensions: &["rb", "rake", "gemspec", "ru"],
        file_names: &["Gemfile", "Rakefile", "Vagrantfile", "Podfile", "Brewfile"],
        blocks: BlockStyle::Keywords,
        opening_words: &[
            "def", "class", "module", "if", "unless", "elsif", "else", "while", "until", "for", "case",
            "when", "in", "begin", "rescue", "ensure",
        ],
        opening_ends: &["do", "then", "begin", "else", "ensure"],
        grammar: Some(scanners::ruby),
        kinds: kinds::RUBY,
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "shellscript",
        aliases: &["sh", "bash", "zsh", "ksh", "shell"],
        extensions: &["sh", "bash", "zsh", "ksh", "bats"],
        file_names: &[
            ".bashrc",
            ".bash_profile",
            ".bash_aliases",
            ".profile",
            ".zshrc",
            ".zshenv",
            "PKGBUILD",
        ],
        blocks: BlockStyle::Keywords,
        opening_words: &[],
        opening_ends: &["do", "then", "else", "{"],
        grammar: Some(scanners::bash),
        kinds: kinds::SHELLSCRIPT,
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "json",
        extensions: &["json", "geojson", "webmanifest", "ipynb"],
        quotes: &['"'],
        blocks: BlockStyle::Braces,
        grammar: Some(|| tree_sitter_json::LANGUAGE.into()),
        kinds: kinds::JSON,
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "jsonc",
        aliases: &["json5", "json with comments"],
        extensions: &["jsonc", "json5", "code-workspace"],
        file_names: &["tsconfig.json", "jsconfig.json", ".eslintrc.json", "devcontainer.json"],
        quotes: &['"'],
        grammar: Some(|| tree_sitter_json::LANGUAGE.into()),
        kinds: kinds::JSON,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "html",
        aliases: &["xhtml"],
        extensions: &["html", "htm", "xhtml"],
        block_comment: Some(("<!--", "-->")),
        quotes: &['"'],
        blocks: BlockStyle::Tags,
        grammar: Some(|| tree_sitter_html::LANGUAGE.into()),
        kinds: kinds::HTML,
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "css",
        extensions: &["css"],
        line_comment: "",
        grammar: Some(|| tree_sitter_css::LANGUAGE.into()),
        kinds: kinds::CSS,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "lua",
        aliases: &["luau"],
        extensions: &["lua", "luau"],
        line_comment: "--",
        block_comment: Some(("--[[", "]]")),
        blocks: BlockStyle::Keywords,
        opening_words: &["function", "repeat", "else"],
        opening_ends: &["do", "then", "else", "repeat"],
        grammar: Some(|| tree_sitter_lua::LANGUAGE.into()),
        kinds: kinds::LUA,
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "php",
        extensions: &["php", "phtml", "php5", "php7"],
        opening_tag: "<?php",
        grammar: Some(|| tree_sitter_php::LANGUAGE_PHP.into()),
        kinds: kinds::PHP,
        ..BRACE_LANGUAGE
    },
    // From here on without a grammar: only the syntax of comments and blocks.
    Language { name: "scss", aliases: &["sass", "less"], extensions: &["scss", "less"], ..BRACE_LANGUAGE },
    Language { name: "kotlin", aliases: &["kt"], extensions: &["kt", "kts"], ..BRACE_LANGUAGE },
    Language { name: "swift", extensions: &["swift"], quotes: &['"'], ..BRACE_LANGUAGE },
    Language { name: "scala", extensions: &["scala", "sc", "sbt"], quotes: &['"'], ..BRACE_LANGUAGE },
    Language { name: "dart", extensions: &["dart"], ..BRACE_LANGUAGE },
    Language {
        name: "groovy",
        extensions: &["groovy", "gradle"],
        file_names: &["Jenkinsfile"],
        ..BRACE_LANGUAGE
    },
    Language { name: "zig", extensions: &["zig", "zon"], block_comment: None, ..BRACE_LANGUAGE },
    Language {
        name: "objective-c",
        aliases: &["objc", "objectivec", "objective-cpp", "objcpp"],
        extensions: &["m", "mm"],
        ..BRACE_LANGUAGE
    },
    Language { name: "d", extensions: &["d", "di"], ..BRACE_LANGUAGE },
    Language { name: "v", aliases: &["vlang"], extensions: &["v", "vsh"], ..BRACE_LANGUAGE },
    Language { name: "odin", extensions: &["odin"], ..BRACE_LANGUAGE },
    Language { name: "solidity", extensions: &["sol"], ..BRACE_LANGUAGE },
    Language { name: "proto", aliases: &["proto3", "protobuf"], extensions: &["proto"], ..BRACE_LANGUAGE },
    Language { name: "wgsl", extensions: &["wgsl"], quotes: &[], ..BRACE_LANGUAGE },
    Language { name: "glsl", extensions: &["glsl", "vert", "frag", "comp"], quotes: &[], ..BRACE_LANGUAGE },
    Language { name: "hlsl", extensions: &["hlsl", "fx"], ..BRACE_LANGUAGE },
    Language {
        name: "verilog",
        aliases: &["systemverilog"],
        extensions: &["sv", "svh", "vh"],
        quotes: &['"'],
        blocks: BlockStyle::None,
        ..BRACE_LANGUAGE
    },
    Language {
        name: "fsharp",
        aliases: &["f#"],
        extensions: &["fs", "fsx", "fsi"],
        line_comment: "//",
        block_comment: Some(("(*", "*)")),
        quotes: &['"'],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "toml",
        extensions: &["toml"],
        file_names: &["Cargo.lock", "Pipfile", "poetry.lock"],
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "yaml",
        aliases: &["yml"],
        extensions: &["yaml", "yml"],
        quotes: &['"'],
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "perl",
        extensions: &["pl", "pm", "t"],
        blocks: BlockStyle::Braces,
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "r",
        extensions: &["r"],
        file_names: &[".Rprofile"],
        blocks: BlockStyle::Braces,
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "powershell",
        aliases: &["ps1"],
        extensions: &["ps1", "psm1"],
        block_comment: Some(("<#", "#>")),
        blocks: BlockStyle::Braces,
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "terraform",
        aliases: &["hcl", "tf"],
        extensions: &["tf", "tfvars", "hcl"],
        quotes: &['"'],
        blocks: BlockStyle::Braces,
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "nix",
        extensions: &["nix"],
        quotes: &['"'],
        block_comment: Some(("/*", "*/")),
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "graphql",
        extensions: &["graphql", "gql"],
        quotes: &['"'],
        blocks: BlockStyle::Braces,
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "cmake",
        extensions: &["cmake"],
        file_names: &["CMakeLists.txt"],
        quotes: &['"'],
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "dockerfile",
        aliases: &["docker", "containerfile"],
        extensions: &["dockerfile"],
        file_names: &["Dockerfile", "Containerfile"],
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "makefile",
        aliases: &["make"],
        extensions: &["mk", "mak"],
        file_names: &["Makefile", "makefile", "GNUmakefile"],
        quotes: &[],
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "fish",
        extensions: &["fish"],
        blocks: BlockStyle::Keywords,
        opening_words: &["function", "if", "while", "for", "else", "begin", "switch"],
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "elixir",
        aliases: &["ex"],
        extensions: &["ex", "exs"],
        quotes: &['"'],
        blocks: BlockStyle::Keywords,
        opening_words: &["else", "rescue", "after"],
        opening_ends: &["do", "else", "rescue", "after"],
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "julia",
        aliases: &["jl"],
        extensions: &["jl"],
        quotes: &['"'],
        block_comment: Some(("#=", "=#")),
        blocks: BlockStyle::Keywords,
        opening_words: &[
            "function", "if", "elseif", "else", "for", "while", "struct", "module", "begin", "try", "catch",
            "let", "macro",
        ],
        opening_ends: &["do", "begin"],
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "gdscript",
        extensions: &["gd"],
        blocks: BlockStyle::Indentation,
        opening_words: &["func", "class", "if", "elif", "else", "for", "while", "match"],
        ..HASH_COMMENT_LANGUAGE
    },
    Language { name: "nim", extensions: &["nim", "nims"], quotes: &['"'], ..HASH_COMMENT_LANGUAGE },
    Language {
        name: "crystal",
        extensions: &["cr"],
        blocks: BlockStyle::Keywords,
        opening_words: &["def", "class", "module", "struct", "if", "unless", "else", "while", "case"],
        opening_ends: &["do", "then"],
        ..HASH_COMMENT_LANGUAGE
    },
    Language {
        name: "sql",
        aliases: &["mysql", "pgsql", "plsql"],
        extensions: &["sql"],
        line_comment: "--",
        block_comment: Some(("/*", "*/")),
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "haskell",
        aliases: &["hs"],
        extensions: &["hs"],
        line_comment: "--",
        block_comment: Some(("{-", "-}")),
        quotes: &['"'],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "elm",
        extensions: &["elm"],
        line_comment: "--",
        block_comment: Some(("{-", "-}")),
        quotes: &['"'],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "ocaml",
        extensions: &["ml", "mli"],
        block_comment: Some(("(*", "*)")),
        quotes: &['"'],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "erlang",
        extensions: &["erl", "hrl"],
        line_comment: "%",
        quotes: &['"'],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "latex",
        aliases: &["tex", "plaintex"],
        extensions: &["tex", "sty", "cls"],
        line_comment: "%",
        quotes: &[],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "matlab",
        aliases: &["octave"],
        extensions: &["mlx"],
        line_comment: "%",
        quotes: &['"'],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "clojure",
        aliases: &["clj"],
        extensions: &["clj", "cljs", "cljc", "edn"],
        line_comment: ";",
        quotes: &['"'],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "scheme",
        aliases: &["racket", "lisp", "commonlisp", "elisp", "emacs-lisp"],
        extensions: &["scm", "rkt", "lisp", "el", "cl"],
        line_comment: ";",
        quotes: &['"'],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "asm",
        aliases: &["assembly", "nasm"],
        extensions: &["asm", "s"],
        line_comment: ";",
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "ini",
        aliases: &["dosini", "properties"],
        extensions: &["ini", "cfg", "conf", "properties"],
        line_comment: ";",
        quotes: &[],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "vim",
        aliases: &["vimscript", "viml"],
        extensions: &["vim"],
        file_names: &[".vimrc", "vimrc"],
        line_comment: "\"",
        quotes: &['\''],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "vb",
        aliases: &["visualbasic"],
        extensions: &["vb", "bas"],
        line_comment: "'",
        quotes: &['"'],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "fortran",
        aliases: &["fortran-modern"],
        extensions: &["f90", "f95", "f03", "f"],
        line_comment: "!",
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "ada",
        extensions: &["adb", "ads"],
        line_comment: "--",
        quotes: &['"'],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "pascal",
        extensions: &["pas", "pp", "dpr"],
        line_comment: "//",
        block_comment: Some(("{", "}")),
        quotes: &['\''],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "markdown",
        aliases: &["md", "quarto", "rmd", "mdx"],
        extensions: &["md", "markdown", "mdx"],
        block_comment: Some(("<!--", "-->")),
        quotes: &[],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "restructuredtext",
        aliases: &["rst"],
        extensions: &["rst"],
        quotes: &[],
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "vue",
        aliases: &["vue-html"],
        extensions: &["vue"],
        block_comment: Some(("<!--", "-->")),
        quotes: &['"'],
        blocks: BlockStyle::Tags,
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "svelte",
        extensions: &["svelte"],
        block_comment: Some(("<!--", "-->")),
        quotes: &['"'],
        blocks: BlockStyle::Tags,
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "astro",
        extensions: &["astro"],
        block_comment: Some(("<!--", "-->")),
        quotes: &['"'],
        blocks: BlockStyle::Tags,
        ..EMPTY_LANGUAGE
    },
    Language {
        name: "xml",
        aliases: &["xsl", "svg"],
        extensions: &["xml", "xsd", "xsl", "svg", "plist", "csproj"],
        block_comment: Some(("<!--", "-->")),
        quotes: &['"'],
        blocks: BlockStyle::Tags,
        ..EMPTY_LANGUAGE
    },
];
