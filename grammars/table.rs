//! The rows of the language table.
//! It knows nothing of how a row is found.

mod kinds;

use crate::{Blocks, Kinds, Language, scanners};

/// What a row has that says nothing: no grammar, no comments, no blocks.
const ROW: Language = Language {
    name: "",
    aliases: &[],
    extensions: &[],
    file_names: &[],
    line_comment: "",
    block_comment: None,
    quotes: &['"', '\''],
    blocks: Blocks::None,
    opening_words: &[],
    opening_ends: &[],
    opening_tag: "",
    grammar: None,
    kinds: Kinds::NONE,
};

/// Line comments with `//`, blocks in braces, comments between `/*` and `*/`.
const BRACES: Language =
    Language { line_comment: "//", block_comment: Some(("/*", "*/")), blocks: Blocks::Braces, ..ROW };

/// Line comments with `#`.
const HASH: Language = Language { line_comment: "#", ..ROW };

/// Every language that taper knows. One without a row still gets suggestions, without a tree.
pub const LANGUAGES: &[Language] = &[
    Language {
        name: "python",
        aliases: &["py", "python3"],
        extensions: &["py", "pyi", "pyw"],
        file_names: &["SConstruct", "SConscript"],
        blocks: Blocks::Indentation,
        opening_words: &[
            "def", "class", "if", "elif", "else", "for", "while", "with", "try", "except", "finally",
            "match", "case", "async",
        ],
        grammar: Some(scanners::python),
        kinds: kinds::PYTHON,
        ..HASH
    },
    Language {
        name: "rust",
        aliases: &["rs"],
        extensions: &["rs"],
        // A `'` may begin a lifetime.
        quotes: &['"'],
        grammar: Some(|| tree_sitter_rust::LANGUAGE.into()),
        kinds: kinds::RUST,
        ..BRACES
    },
    Language {
        name: "javascript",
        aliases: &["js", "node"],
        extensions: &["js", "mjs", "cjs"],
        quotes: &['"', '\'', '`'],
        grammar: Some(|| tree_sitter_javascript::LANGUAGE.into()),
        kinds: kinds::JAVASCRIPT,
        ..BRACES
    },
    Language {
        name: "javascriptreact",
        aliases: &["jsx", "javascript.jsx"],
        extensions: &["jsx"],
        // An apostrophe is plain text between tags.
        quotes: &['"', '`'],
        grammar: Some(|| tree_sitter_javascript::LANGUAGE.into()),
        kinds: kinds::JAVASCRIPT,
        ..BRACES
    },
    Language {
        name: "typescript",
        aliases: &["ts"],
        extensions: &["ts", "mts", "cts"],
        quotes: &['"', '\'', '`'],
        grammar: Some(|| tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into()),
        kinds: kinds::TYPESCRIPT,
        ..BRACES
    },
    Language {
        name: "typescriptreact",
        aliases: &["tsx", "typescript.tsx"],
        extensions: &["tsx"],
        quotes: &['"', '`'],
        grammar: Some(|| tree_sitter_typescript::LANGUAGE_TSX.into()),
        kinds: kinds::TYPESCRIPT,
        ..BRACES
    },
    Language {
        name: "go",
        aliases: &["golang"],
        extensions: &["go"],
        quotes: &['"', '\'', '`'],
        grammar: Some(|| tree_sitter_go::LANGUAGE.into()),
        kinds: kinds::GO,
        ..BRACES
    },
    Language {
        name: "java",
        extensions: &["java"],
        grammar: Some(|| tree_sitter_java::LANGUAGE.into()),
        kinds: kinds::JAVA,
        ..BRACES
    },
    Language {
        name: "c",
        extensions: &["c", "h"],
        grammar: Some(|| tree_sitter_c::LANGUAGE.into()),
        kinds: kinds::C,
        ..BRACES
    },
    Language {
        name: "cpp",
        aliases: &["c++", "cxx", "cuda", "cuda-cpp"],
        extensions: &["cpp", "cc", "cxx", "c++", "hpp", "hh", "hxx", "h++", "ipp", "inl", "cu", "cuh"],
        grammar: Some(|| tree_sitter_cpp::LANGUAGE.into()),
        kinds: kinds::CPP,
        ..BRACES
    },
    Language {
        name: "csharp",
        aliases: &["cs", "c#", "c_sharp", "c-sharp"],
        extensions: &["cs", "csx"],
        grammar: Some(|| tree_sitter_c_sharp::LANGUAGE.into()),
        kinds: kinds::CSHARP,
        ..BRACES
    },
    Language {
        name: "ruby",
        aliases: &["rb"],
        extensions: &["rb", "rake", "gemspec", "ru"],
        file_names: &["Gemfile", "Rakefile", "Vagrantfile", "Podfile", "Brewfile"],
        blocks: Blocks::Keywords,
        opening_words: &[
            "def", "class", "module", "if", "unless", "elsif", "else", "while", "until", "for", "case",
            "when", "in", "begin", "rescue", "ensure",
        ],
        opening_ends: &["do", "then", "begin", "else", "ensure"],
        grammar: Some(scanners::ruby),
        kinds: kinds::RUBY,
        ..HASH
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
        blocks: Blocks::Keywords,
        opening_words: &[],
        opening_ends: &["do", "then", "else", "{"],
        grammar: Some(scanners::bash),
        kinds: kinds::SHELLSCRIPT,
        ..HASH
    },
    Language {
        name: "json",
        extensions: &["json", "geojson", "webmanifest", "ipynb"],
        quotes: &['"'],
        blocks: Blocks::Braces,
        grammar: Some(|| tree_sitter_json::LANGUAGE.into()),
        kinds: kinds::JSON,
        ..ROW
    },
    Language {
        name: "jsonc",
        aliases: &["json5", "json with comments"],
        extensions: &["jsonc", "json5", "code-workspace"],
        file_names: &["tsconfig.json", "jsconfig.json", ".eslintrc.json", "devcontainer.json"],
        quotes: &['"'],
        grammar: Some(|| tree_sitter_json::LANGUAGE.into()),
        kinds: kinds::JSON,
        ..BRACES
    },
    Language {
        name: "html",
        aliases: &["xhtml"],
        extensions: &["html", "htm", "xhtml"],
        block_comment: Some(("<!--", "-->")),
        quotes: &['"'],
        blocks: Blocks::Tags,
        grammar: Some(|| tree_sitter_html::LANGUAGE.into()),
        kinds: kinds::HTML,
        ..ROW
    },
    Language {
        name: "css",
        extensions: &["css"],
        line_comment: "",
        grammar: Some(|| tree_sitter_css::LANGUAGE.into()),
        kinds: kinds::CSS,
        ..BRACES
    },
    Language {
        name: "lua",
        aliases: &["luau"],
        extensions: &["lua", "luau"],
        line_comment: "--",
        block_comment: Some(("--[[", "]]")),
        blocks: Blocks::Keywords,
        opening_words: &["function", "repeat", "else"],
        opening_ends: &["do", "then", "else", "repeat"],
        grammar: Some(|| tree_sitter_lua::LANGUAGE.into()),
        kinds: kinds::LUA,
        ..ROW
    },
    Language {
        name: "php",
        extensions: &["php", "phtml", "php5", "php7"],
        opening_tag: "<?php",
        grammar: Some(|| tree_sitter_php::LANGUAGE_PHP.into()),
        kinds: kinds::PHP,
        ..BRACES
    },
    // From here on: no grammar, only how comments and blocks look.
    Language { name: "scss", aliases: &["sass", "less"], extensions: &["scss", "less"], ..BRACES },
    Language { name: "kotlin", aliases: &["kt"], extensions: &["kt", "kts"], ..BRACES },
    Language { name: "swift", extensions: &["swift"], quotes: &['"'], ..BRACES },
    Language { name: "scala", extensions: &["scala", "sc", "sbt"], quotes: &['"'], ..BRACES },
    Language { name: "dart", extensions: &["dart"], ..BRACES },
    Language { name: "groovy", extensions: &["groovy", "gradle"], file_names: &["Jenkinsfile"], ..BRACES },
    Language { name: "zig", extensions: &["zig", "zon"], block_comment: None, ..BRACES },
    Language {
        name: "objective-c",
        aliases: &["objc", "objectivec", "objective-cpp", "objcpp"],
        extensions: &["m", "mm"],
        ..BRACES
    },
    Language { name: "d", extensions: &["d", "di"], ..BRACES },
    Language { name: "v", aliases: &["vlang"], extensions: &["v", "vsh"], ..BRACES },
    Language { name: "odin", extensions: &["odin"], ..BRACES },
    Language { name: "solidity", extensions: &["sol"], ..BRACES },
    Language { name: "proto", aliases: &["proto3", "protobuf"], extensions: &["proto"], ..BRACES },
    Language { name: "wgsl", extensions: &["wgsl"], quotes: &[], ..BRACES },
    Language { name: "glsl", extensions: &["glsl", "vert", "frag", "comp"], quotes: &[], ..BRACES },
    Language { name: "hlsl", extensions: &["hlsl", "fx"], ..BRACES },
    Language {
        name: "verilog",
        aliases: &["systemverilog"],
        extensions: &["sv", "svh", "vh"],
        quotes: &['"'],
        blocks: Blocks::None,
        ..BRACES
    },
    Language {
        name: "fsharp",
        aliases: &["f#"],
        extensions: &["fs", "fsx", "fsi"],
        line_comment: "//",
        block_comment: Some(("(*", "*)")),
        quotes: &['"'],
        ..ROW
    },
    Language {
        name: "toml",
        extensions: &["toml"],
        file_names: &["Cargo.lock", "Pipfile", "poetry.lock"],
        ..HASH
    },
    Language { name: "yaml", aliases: &["yml"], extensions: &["yaml", "yml"], quotes: &['"'], ..HASH },
    Language { name: "perl", extensions: &["pl", "pm", "t"], blocks: Blocks::Braces, ..HASH },
    Language { name: "r", extensions: &["r"], file_names: &[".Rprofile"], blocks: Blocks::Braces, ..HASH },
    Language {
        name: "powershell",
        aliases: &["ps1"],
        extensions: &["ps1", "psm1"],
        block_comment: Some(("<#", "#>")),
        blocks: Blocks::Braces,
        ..HASH
    },
    Language {
        name: "terraform",
        aliases: &["hcl", "tf"],
        extensions: &["tf", "tfvars", "hcl"],
        quotes: &['"'],
        blocks: Blocks::Braces,
        ..HASH
    },
    Language { name: "nix", extensions: &["nix"], quotes: &['"'], block_comment: Some(("/*", "*/")), ..HASH },
    Language {
        name: "graphql",
        extensions: &["graphql", "gql"],
        quotes: &['"'],
        blocks: Blocks::Braces,
        ..HASH
    },
    Language {
        name: "cmake",
        extensions: &["cmake"],
        file_names: &["CMakeLists.txt"],
        quotes: &['"'],
        ..HASH
    },
    Language {
        name: "dockerfile",
        aliases: &["docker", "containerfile"],
        extensions: &["dockerfile"],
        file_names: &["Dockerfile", "Containerfile"],
        ..HASH
    },
    Language {
        name: "makefile",
        aliases: &["make"],
        extensions: &["mk", "mak"],
        file_names: &["Makefile", "makefile", "GNUmakefile"],
        quotes: &[],
        ..HASH
    },
    Language {
        name: "fish",
        extensions: &["fish"],
        blocks: Blocks::Keywords,
        opening_words: &["function", "if", "while", "for", "else", "begin", "switch"],
        ..HASH
    },
    Language {
        name: "elixir",
        aliases: &["ex"],
        extensions: &["ex", "exs"],
        quotes: &['"'],
        blocks: Blocks::Keywords,
        opening_words: &["else", "rescue", "after"],
        opening_ends: &["do", "else", "rescue", "after"],
        ..HASH
    },
    Language {
        name: "julia",
        aliases: &["jl"],
        extensions: &["jl"],
        quotes: &['"'],
        block_comment: Some(("#=", "=#")),
        blocks: Blocks::Keywords,
        opening_words: &[
            "function", "if", "elseif", "else", "for", "while", "struct", "module", "begin", "try", "catch",
            "let", "macro",
        ],
        opening_ends: &["do", "begin"],
        ..HASH
    },
    Language {
        name: "gdscript",
        extensions: &["gd"],
        blocks: Blocks::Indentation,
        opening_words: &["func", "class", "if", "elif", "else", "for", "while", "match"],
        ..HASH
    },
    Language { name: "nim", extensions: &["nim", "nims"], quotes: &['"'], ..HASH },
    Language {
        name: "crystal",
        extensions: &["cr"],
        blocks: Blocks::Keywords,
        opening_words: &["def", "class", "module", "struct", "if", "unless", "else", "while", "case"],
        opening_ends: &["do", "then"],
        ..HASH
    },
    Language {
        name: "sql",
        aliases: &["mysql", "pgsql", "plsql"],
        extensions: &["sql"],
        line_comment: "--",
        block_comment: Some(("/*", "*/")),
        ..ROW
    },
    Language {
        name: "haskell",
        aliases: &["hs"],
        extensions: &["hs"],
        line_comment: "--",
        block_comment: Some(("{-", "-}")),
        quotes: &['"'],
        ..ROW
    },
    Language {
        name: "elm",
        extensions: &["elm"],
        line_comment: "--",
        block_comment: Some(("{-", "-}")),
        quotes: &['"'],
        ..ROW
    },
    Language {
        name: "ocaml",
        extensions: &["ml", "mli"],
        block_comment: Some(("(*", "*)")),
        quotes: &['"'],
        ..ROW
    },
    Language { name: "erlang", extensions: &["erl", "hrl"], line_comment: "%", quotes: &['"'], ..ROW },
    Language {
        name: "latex",
        aliases: &["tex", "plaintex"],
        extensions: &["tex", "sty", "cls"],
        line_comment: "%",
        quotes: &[],
        ..ROW
    },
    Language {
        name: "matlab",
        aliases: &["octave"],
        extensions: &["mlx"],
        line_comment: "%",
        quotes: &['"'],
        ..ROW
    },
    Language {
        name: "clojure",
        aliases: &["clj"],
        extensions: &["clj", "cljs", "cljc", "edn"],
        line_comment: ";",
        quotes: &['"'],
        ..ROW
    },
    Language {
        name: "scheme",
        aliases: &["racket", "lisp", "commonlisp", "elisp", "emacs-lisp"],
        extensions: &["scm", "rkt", "lisp", "el", "cl"],
        line_comment: ";",
        quotes: &['"'],
        ..ROW
    },
    Language {
        name: "asm",
        aliases: &["assembly", "nasm"],
        extensions: &["asm", "s"],
        line_comment: ";",
        ..ROW
    },
    Language {
        name: "ini",
        aliases: &["dosini", "properties"],
        extensions: &["ini", "cfg", "conf", "properties"],
        line_comment: ";",
        quotes: &[],
        ..ROW
    },
    Language {
        name: "vim",
        aliases: &["vimscript", "viml"],
        extensions: &["vim"],
        file_names: &[".vimrc", "vimrc"],
        line_comment: "\"",
        quotes: &['\''],
        ..ROW
    },
    Language {
        name: "vb",
        aliases: &["visualbasic"],
        extensions: &["vb", "bas"],
        line_comment: "'",
        quotes: &['"'],
        ..ROW
    },
    Language {
        name: "fortran",
        aliases: &["fortran-modern"],
        extensions: &["f90", "f95", "f03", "f"],
        line_comment: "!",
        ..ROW
    },
    Language { name: "ada", extensions: &["adb", "ads"], line_comment: "--", quotes: &['"'], ..ROW },
    Language {
        name: "pascal",
        extensions: &["pas", "pp", "dpr"],
        line_comment: "//",
        block_comment: Some(("{", "}")),
        quotes: &['\''],
        ..ROW
    },
    Language {
        name: "markdown",
        aliases: &["md", "quarto", "rmd", "mdx"],
        extensions: &["md", "markdown", "mdx"],
        block_comment: Some(("<!--", "-->")),
        quotes: &[],
        ..ROW
    },
    Language { name: "restructuredtext", aliases: &["rst"], extensions: &["rst"], quotes: &[], ..ROW },
    Language {
        name: "vue",
        aliases: &["vue-html"],
        extensions: &["vue"],
        block_comment: Some(("<!--", "-->")),
        quotes: &['"'],
        blocks: Blocks::Tags,
        ..ROW
    },
    Language {
        name: "svelte",
        extensions: &["svelte"],
        block_comment: Some(("<!--", "-->")),
        quotes: &['"'],
        blocks: Blocks::Tags,
        ..ROW
    },
    Language {
        name: "astro",
        extensions: &["astro"],
        block_comment: Some(("<!--", "-->")),
        quotes: &['"'],
        blocks: Blocks::Tags,
        ..ROW
    },
    Language {
        name: "xml",
        aliases: &["xsl", "svg"],
        extensions: &["xml", "xsd", "xsl", "svg", "plist", "csproj"],
        block_comment: Some(("<!--", "-->")),
        quotes: &['"'],
        blocks: Blocks::Tags,
        ..ROW
    },
];
