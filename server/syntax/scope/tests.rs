//! Tests of queries at marked positions of small programs, whole and broken.
#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a test may; a method of a borrowing type is no closure"
)]

use super::*;

struct ScopeFixture {
    text: Rope,
    language: &'static Language,
    syntax: Option<Syntax>,
    offset: usize,
}

/// A text with its cursor at `▮`.
fn parse_fixture(name: &str, marked: &str) -> ScopeFixture {
    let offset = marked.find('▮').unwrap();
    let text = Rope::from_str(&marked.replace('▮', ""));
    let language = taper_grammars::by_id(name).unwrap();
    let syntax = Syntax::parse(&text, language, &mut || false);
    ScopeFixture { text, language, syntax, offset }
}

impl ScopeFixture {
    fn scope_at_cursor(&self) -> Scope<'_> {
        Scope::new(&self.text, self.language, self.syntax.as_ref(), self.offset)
    }
    fn without_tree(&self) -> Scope<'_> {
        Scope { syntax: None, ..self.scope_at_cursor() }
    }
}

fn check_cases(question: impl Fn(&Scope) -> bool, cases: &[(&str, bool, &str)]) {
    let wrong = cases
        .iter()
        .filter(|(name, yes, marked)| question(&parse_fixture(name, marked).scope_at_cursor()) != *yes);
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn strings_are_detected_complete_and_unfinished() {
    check_cases(
        |place| place.is_in_string(),
        &[
            ("python", true, "x = \"a▮b\"\n"),
            ("python", true, "x = \"▮\"\n"),
            ("python", false, "x = \"\"▮\n"),
            ("python", false, "x = ▮\"\"\n"),
            ("python", true, "x = \"abc▮\ny = 1\n"),
            ("python", true, "print('abc▮"),
            ("python", true, "\"\"\"Doc.\n\nmore▮\n\"\"\"\n"),
            ("python", false, "x = f\"{y▮}\"\n"),
            ("python", true, "x = f\"{y} ▮\"\n"),
            ("python", false, "x = 1  # don't▮\n"),
            ("rust", true, "fn f() { g(\"a▮\"); }\n"),
            ("rust", true, "fn f() { g(r#\"a\"▮\"#); }\n"),
            ("rust", false, "fn f<'a>(x: &'a ▮str) {}\n"),
            ("rust", true, "fn f() {\n    let x = \"abc▮\n}\n"),
            ("javascript", true, "f('a▮');\n"),
            ("javascript", false, "f(`a${b▮}`);\n"),
            ("javascript", true, "f(`a${b}▮`);\n"),
            ("javascript", true, "f('a▮\ng();\n"),
            ("typescript", true, "import a from \"▮\";\n"),
            ("go", true, "package a\nvar x = `a\n▮`\n"),
            ("go", true, "package a\nfunc f() {\n\tg(\"a▮\n}\n"),
            ("java", true, "class A { String s = \"▮\"; }\n"),
            ("java", false, "class A { String s = \"\" + ▮; }\n"),
            ("c", true, "int main() { puts(\"a▮\"); }\n"),
            ("c", true, "#include \"a▮\"\n"),
            ("c", false, "int main() { puts(\"a\"▮); }\n"),
            ("ruby", true, "puts \"a▮\"\n"),
            ("ruby", false, "puts \"#{a▮}\"\n"),
            ("html", true, "<a href=\"▮\"></a>\n"),
            ("html", false, "<p>a \" ▮</p>\n"),
            ("kotlin", true, "val x = \"a▮\"\n"),
            ("kotlin", false, "val x = \"a\\\"\" + ▮\n"),
        ],
    );
}

#[test]
fn comments_are_detected_complete_and_unfinished() {
    check_cases(
        |place| place.is_in_comment(),
        &[
            ("python", true, "x = 1  # why▮\n"),
            ("python", true, "# ▮"),
            ("python", false, "# a\n▮"),
            ("python", false, "x = '#▮'\n"),
            ("rust", true, "// ▮\n"),
            ("rust", true, "/// Doc▮\nfn f() {}\n"),
            ("rust", false, "/// Doc\n▮fn f() {}\n"),
            ("rust", true, "/* a ▮ */\n"),
            ("rust", false, "/* a */▮\n"),
            ("javascript", true, "f(); // a▮\n"),
            ("javascript", false, "f('http://▮');\n"),
            ("typescriptreact", true, "const a = <p>{/* ▮ */}</p>;\n"),
            ("go", true, "package a\n\n// F ▮\nfunc F() {}\n"),
            ("java", true, "/** a▮ */\nclass A {}\n"),
            ("c", true, "int x; // a▮\n"),
            ("ruby", true, "x = 1 # a▮\n"),
            ("html", true, "<!-- ▮ -->\n"),
            ("html", false, "<!-- --> ▮\n"),
            ("lua", true, "x = 1 -- a▮\n"),
            ("sql", true, "select 1 -- a▮\n"),
        ],
    );
}

#[test]
fn empty_block_is_detected() {
    let cases = [
        ("python", true, "def f(x):▮\n"),
        ("python", true, "def f(x):\n    ▮\n"),
        ("python", true, "def f(x):\n    ▮\n\ndef g():\n    pass\n"),
        ("python", true, "class A:\n    def f(self):\n        ▮\n\n    def g(self):\n        pass\n"),
        ("python", true, "def f(x):\n    \"\"\"Doc.\"\"\"\n    ▮\n"),
        ("python", true, "def f(x):\n    # why\n    ▮\n"),
        ("python", true, "def f(\n    x: int,\n) -> int:\n    ▮\n"),
        ("python", true, "if x:\n    a()\nelse:\n    ▮\n"),
        ("python", true, "for x in y:▮"),
        ("python", true, "def f():\r\n    ▮\r\n"),
        ("python", false, "def f(x):\n    ▮\n    return 1\n"),
        ("python", false, "def f(x):\n    a()\n    ▮\n"),
        ("python", false, "x = {1:▮}\n"),
        ("python", false, "x = y[1:▮]\n"),
        ("python", false, "def f(x▮):\n    pass\n"),
        ("python", false, "x: ▮\n"),
        ("python", false, "f = lambda x:▮\n"),
        ("python", false, "print('if x:▮')\n"),
        ("rust", true, "fn f() {▮}\n"),
        ("rust", true, "fn f() {\n    ▮\n}\n"),
        ("rust", true, "fn f() {▮\n"),
        ("rust", true, "fn f() {\n    if x {\n        ▮\n\nfn g() {}\n"),
        ("rust", true, "impl A {\n    fn f(&self) -> u8 {\n        ▮\n    }\n\n    fn g() {}\n}\n"),
        ("rust", true, "fn f() { match x {▮} }\n"),
        ("rust", true, "struct A {\n    ▮\n}\n"),
        ("rust", true, "fn f() {\n    // why\n    ▮\n}\n"),
        ("rust", false, "fn f() {\n    ▮\n    g();\n}\n"),
        ("rust", false, "fn f() {\n    g();\n    ▮\n}\n"),
        ("rust", false, "fn f() { let a = A {▮}; }\n"),
        ("rust", false, "use a::{▮};\n"),
        ("rust", false, "fn f() { println!(\"{▮}\"); }\n"),
        ("javascript", true, "function f(a) {\n  ▮\n}\n"),
        ("javascript", true, "const f = (a) => {▮};\n"),
        ("javascript", true, "a.map((b) => {▮})\n"),
        ("javascript", true, "if (a) {\n  ▮"),
        ("javascript", true, "try {\n  a();\n} catch (e) {\n  ▮\n}\n"),
        ("javascript", true, "switch (a) {\n  case 1: {\n    ▮\n\n  case 2:\n    b();\n}\n"),
        ("javascript", true, "switch (a) {\n  default: {▮\n"),
        ("javascript", false, "const a = {▮};\n"),
        ("javascript", false, "f({ default: {▮} });\n"),
        ("javascript", false, "f({▮});\n"),
        ("javascript", false, "import {▮} from 'a';\n"),
        ("javascript", false, "f(`${▮}`);\n"),
        ("typescript", true, "interface A {\n  ▮\n}\n"),
        ("typescript", true, "class A {\n  f(): void {\n    ▮\n  }\n}\n"),
        ("typescript", true, "export function f(a: string): number {▮\n"),
        ("typescript", false, "const a: A = {▮}\n"),
        ("go", true, "package a\n\nfunc f() {\n\t▮\n}\n"),
        ("go", true, "package a\n\nfunc f() {\n\tif err != nil {▮\n}\n"),
        ("go", true, "package a\n\nfunc f() {\n\tfor _, x := range y {\n\t\t▮\n\t}\n}\n"),
        ("go", true, "package a\n\ntype A struct {\n\t▮\n}\n"),
        ("go", false, "package a\n\nvar x = []int{▮}\n"),
        ("java", true, "class A {\n    void f() {\n        ▮\n    }\n}\n"),
        ("java", true, "class A {\n    void f() {\n        for (int i = 0; i < 3; i++) {▮\n    }\n}\n"),
        ("java", true, "class A {▮}\n"),
        ("java", false, "class A { int[] a = {▮}; }\n"),
        ("java", false, "class A {\n    int x;\n    ▮\n}\n"),
        ("c", true, "int main(void)\n{\n    ▮\n}\n"),
        ("c", true, "int main(void) {\n    while (1) {\n        ▮\n"),
        ("c", true, "struct a {\n    ▮\n};\n"),
        ("c", false, "int a[] = {▮};\n"),
        ("cpp", true, "namespace a {\nclass B {\npublic:\n  void f() {▮}\n};\n}\n"),
        ("csharp", true, "class A\n{\n    void F()\n    {\n        ▮\n    }\n}\n"),
        ("php", true, "<?php\nfunction f($a) {\n    ▮\n}\n"),
        ("ruby", true, "def f(x)\n  ▮\nend\n"),
        ("ruby", true, "def f(x)▮\nend\n"),
        ("ruby", true, "class A\n  def f\n    ▮\n  end\nend\n"),
        ("ruby", true, "x.each do |y|\n  ▮\nend\n"),
        ("ruby", true, "x.each do |y|▮\n"),
        ("ruby", true, "if x\n  a\nelse\n  ▮\nend\n"),
        ("ruby", false, "def f▮\n"),
        ("ruby", false, "def f = 1\n▮\n"),
        ("ruby", false, "def f\n  a\n  ▮\nend\n"),
        ("ruby", false, "def f\n  ▮\n  a\nend\n"),
        ("ruby", false, "return x if y\n▮\n"),
        ("lua", true, "local function f(x)\n  ▮\nend\n"),
        ("lua", true, "for i = 1, 3 do\n  ▮\nend\n"),
        ("lua", true, "if x then▮\n"),
        ("shellscript", true, "if [ -n \"$x\" ]; then\n  ▮\nfi\n"),
        ("shellscript", true, "f() {\n  ▮\n}\n"),
        ("shellscript", true, "for x in a b; do▮\n"),
        ("shellscript", false, "echo a; ▮\n"),
        ("html", true, "<ul>▮</ul>\n"),
        ("html", true, "<ul>\n  ▮\n</ul>\n"),
        ("html", false, "<ul>\n  <li>a</li>\n  ▮\n</ul>\n"),
        ("html", false, "<ul>\n  ▮\n  <li>a</li>\n</ul>\n"),
        ("html", false, "<p><br>▮</p>\n"),
        ("css", true, "a {▮}\n"),
        ("css", true, "a {\n  ▮\n}\n"),
        ("css", false, "a {\n  b: c;\n  ▮\n}\n"),
        ("json", false, "{▮}\n"),
        ("toml", false, "a = {▮}\n"),
        ("kotlin", true, "fun f(): Int {\n    ▮\n}\n"),
        ("kotlin", false, "fun f(): Int {\n    return 1▮\n}\n"),
    ];
    check_cases(|place| place.is_in_empty_block(), &cases);
    // Without a tree the text alone mostly gives the same result.
    let missed = cases.iter().filter(|(name, expected, marked)| {
        parse_fixture(name, marked).without_tree().is_in_empty_block() != *expected
    });
    let missed: Vec<_> = missed.map(|(name, _, marked)| (name, marked)).collect();
    assert!(missed.len() <= 3, "{missed:#?}");
}

#[test]
fn faults_are_counted_in_range() {
    let of = |text: &str| parse_fixture("rust", &format!("▮{text}")).syntax.unwrap().tree;
    assert_eq!(fault_count(&of("fn f() { a(); }\n")), 0);
    assert_eq!(fault_count(&of("fn f() { a() b }\n")), 1);
    assert!(fault_count(&of("fn f() { a( }\n")) >= 1);
    let tree = of("fn f() { a() b; }\nfn g() {}\nfn h() { c() d; }\n");
    assert_eq!(fault_count(&tree), 2);
    assert_eq!(fault_count_in(&tree, 0..18), 1);
    assert_eq!(fault_count_in(&tree, 18..28), 0);
    assert_eq!(fault_count_in(&tree, 28..1_000), 1);
    // A token that is missing counts as well.
    let tree = of("fn f() { let a = 1 }\n");
    assert!(fault_count(&tree) >= 1, "{}", tree.root_node().to_sexp());
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    for (name, text) in [("json", "[".repeat(50_000)), ("javascript", format!("{}a", "(".repeat(50_000)))] {
        let fixture = parse_fixture(name, &format!("{text}▮"));
        let place = fixture.scope_at_cursor();
        let _ = (place.is_in_string(), place.is_in_comment(), place.is_in_empty_block());
        assert!(fixture.syntax.as_ref().is_none_or(|syntax| fault_count(&syntax.tree) > 0));
    }
}

/// No position of any text may panic, whatever the tree.
#[test]
fn every_offset_can_be_queried_without_panic() {
    let pieces = [
        "def f():\n",
        "fn f() {",
        "}",
        "\"",
        "'",
        "`${",
        "{",
        "do |x|",
        "|",
        "<p>",
        "</p>",
        "<",
        "#",
        "//",
        "/*",
        "*/",
        ":",
        "\n",
        "\r\n",
        "\r",
        "  ",
        "\t",
        "é",
        "😀",
        "\\",
        "function(",
        ")",
        "end\n",
        "class A",
        "x = ",
    ];
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let plain: String = (0..random.usize(..25)).map(|_| pieces[random.usize(..pieces.len())]).collect();
        let text = Rope::from_str(&plain);
        for name in [
            "python",
            "rust",
            "typescriptreact",
            "go",
            "c",
            "ruby",
            "lua",
            "shellscript",
            "html",
            "css",
            "vue",
        ] {
            let language = taper_grammars::by_id(name).unwrap();
            let syntax = Syntax::parse(&text, language, &mut || false);
            for offset in 0..=plain.len() + 1 {
                for syntax in [syntax.as_ref(), None] {
                    let place = Scope::new(&text, language, syntax, offset);
                    let _ = (place.is_in_string(), place.is_in_comment(), place.is_in_empty_block());
                }
            }
        }
    }
}
