//! Each grammar's names for strings, comments, blocks and definitions.

use crate::NodeKinds;

pub(super) const JAVASCRIPT: NodeKinds = NodeKinds {
    strings: &["string", "template_string", "regex"],
    interpolations: &["template_substitution"],
    comments: &["comment", "html_comment"],
    blocks: &["statement_block", "class_body", "switch_body", "class_static_block"],
    definitions: &[
        "function_declaration",
        "function_expression",
        "generator_function",
        "generator_function_declaration",
        "arrow_function",
        "method_definition",
        "class_declaration",
        "class",
    ],
};

pub(super) const TYPESCRIPT: NodeKinds = NodeKinds {
    strings: &["string", "template_string", "regex"],
    interpolations: &["template_substitution"],
    comments: &["comment", "html_comment"],
    blocks: &[
        "statement_block",
        "class_body",
        "switch_body",
        "class_static_block",
        "interface_body",
        "enum_body",
    ],
    definitions: &[
        "function_declaration",
        "function_expression",
        "generator_function",
        "generator_function_declaration",
        "arrow_function",
        "method_definition",
        "class_declaration",
        "abstract_class_declaration",
        "class",
        "interface_declaration",
        "enum_declaration",
        "internal_module",
        "module",
    ],
};

pub(super) const JSON: NodeKinds = NodeKinds {
    strings: &["string"],
    interpolations: &[],
    comments: &["comment"],
    blocks: &[],
    definitions: &[],
};

pub(super) const PYTHON: NodeKinds = NodeKinds {
    strings: &["string"],
    interpolations: &["interpolation"],
    comments: &["comment"],
    blocks: &["block"],
    definitions: &["function_definition", "class_definition"],
};

pub(super) const RUST: NodeKinds = NodeKinds {
    strings: &["string_literal", "raw_string_literal", "char_literal"],
    interpolations: &[],
    comments: &["line_comment", "block_comment"],
    blocks: &["block", "declaration_list", "match_block", "field_declaration_list", "enum_variant_list"],
    definitions: &[
        "function_item",
        "impl_item",
        "struct_item",
        "enum_item",
        "union_item",
        "trait_item",
        "mod_item",
        "macro_definition",
    ],
};

pub(super) const GO: NodeKinds = NodeKinds {
    strings: &["interpreted_string_literal", "raw_string_literal", "rune_literal"],
    interpolations: &[],
    comments: &["comment"],
    blocks: &["block", "field_declaration_list", "interface_type"],
    definitions: &["function_declaration", "method_declaration", "func_literal", "type_declaration"],
};

pub(super) const JAVA: NodeKinds = NodeKinds {
    strings: &["string_literal", "character_literal"],
    interpolations: &["string_interpolation"],
    comments: &["line_comment", "block_comment"],
    blocks: &[
        "block",
        "class_body",
        "constructor_body",
        "interface_body",
        "enum_body",
        "annotation_type_body",
        "switch_block",
        "module_body",
    ],
    definitions: &[
        "class_declaration",
        "method_declaration",
        "constructor_declaration",
        "compact_constructor_declaration",
        "interface_declaration",
        "enum_declaration",
        "record_declaration",
        "annotation_type_declaration",
        "lambda_expression",
    ],
};

pub(super) const C: NodeKinds = NodeKinds {
    strings: &["string_literal", "char_literal", "system_lib_string"],
    interpolations: &[],
    comments: &["comment"],
    blocks: &["compound_statement", "field_declaration_list", "enumerator_list", "declaration_list"],
    definitions: &["function_definition", "struct_specifier", "union_specifier", "enum_specifier"],
};

pub(super) const CPP: NodeKinds = NodeKinds {
    strings: &["string_literal", "raw_string_literal", "char_literal", "system_lib_string"],
    interpolations: &[],
    comments: &["comment"],
    blocks: &["compound_statement", "field_declaration_list", "enumerator_list", "declaration_list"],
    definitions: &[
        "function_definition",
        "struct_specifier",
        "class_specifier",
        "union_specifier",
        "enum_specifier",
        "namespace_definition",
        "lambda_expression",
    ],
};

pub(super) const CSHARP: NodeKinds = NodeKinds {
    strings: &[
        "string_literal",
        "verbatim_string_literal",
        "raw_string_literal",
        "interpolated_string_expression",
        "character_literal",
    ],
    interpolations: &["interpolation"],
    comments: &["comment"],
    blocks: &["block", "declaration_list", "accessor_list", "switch_body", "enum_member_declaration_list"],
    definitions: &[
        "class_declaration",
        "struct_declaration",
        "record_declaration",
        "interface_declaration",
        "enum_declaration",
        "namespace_declaration",
        "method_declaration",
        "constructor_declaration",
        "destructor_declaration",
        "operator_declaration",
        "property_declaration",
        "indexer_declaration",
        "local_function_statement",
        "lambda_expression",
    ],
};

pub(super) const RUBY: NodeKinds = NodeKinds {
    strings: &["string", "regex", "heredoc_body", "string_array", "subshell", "character"],
    interpolations: &["interpolation"],
    comments: &["comment"],
    blocks: &["body_statement", "block_body", "do_block", "block", "then", "else", "begin", "do"],
    definitions: &["method", "singleton_method", "class", "singleton_class", "module", "lambda"],
};

pub(super) const SHELLSCRIPT: NodeKinds = NodeKinds {
    strings: &["string", "raw_string", "ansi_c_string", "heredoc_body"],
    interpolations: &["command_substitution", "expansion"],
    comments: &["comment"],
    blocks: &["compound_statement", "do_group"],
    definitions: &["function_definition"],
};

pub(super) const HTML: NodeKinds = NodeKinds {
    strings: &["quoted_attribute_value"],
    interpolations: &[],
    comments: &["comment"],
    blocks: &["element", "script_element", "style_element"],
    definitions: &[],
};

pub(super) const CSS: NodeKinds = NodeKinds {
    strings: &["string_value"],
    interpolations: &[],
    comments: &["comment"],
    blocks: &["block", "keyframe_block_list"],
    definitions: &["rule_set", "media_statement", "keyframes_statement"],
};

pub(super) const LUA: NodeKinds = NodeKinds {
    strings: &["string"],
    interpolations: &[],
    comments: &["comment"],
    blocks: &["block"],
    definitions: &["function_declaration", "function_definition"],
};

pub(super) const PHP: NodeKinds = NodeKinds {
    strings: &["string", "encapsed_string", "heredoc", "nowdoc_string"],
    interpolations: &[],
    comments: &["comment"],
    blocks: &[
        "compound_statement",
        "declaration_list",
        "enum_declaration_list",
        "switch_block",
        "match_block",
        "colon_block",
    ],
    definitions: &[
        "function_definition",
        "method_declaration",
        "class_declaration",
        "interface_declaration",
        "trait_declaration",
        "enum_declaration",
        "anonymous_function",
        "arrow_function",
    ],
};
