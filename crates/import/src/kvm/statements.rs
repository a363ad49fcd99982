//! C functions as flat lists of statements, each with the conditions and the `case` labels around it.
//!
//! Just enough of C for KVM's capability code: `if`, `else`, `switch`, loops, blocks, labels, and `#ifdef`. No
//! expression is understood, only delimited.

/// How deep blocks may nest, so that hostile input cannot exhaust the stack. KVM's code nests six deep.
const MAX_DEPTH: usize = 64;

/// The statements of a function body, in order.
#[derive(Debug, Default)]
pub(super) struct Statements {
    pub(super) list: Vec<Statement>,
    /// Every `case` label, with the expression of its `switch`.
    pub(super) labels: Vec<Label>,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// The text without the semicolon, with single blanks.
    pub(super) text: String,
    /// The conditions of the `if`s around it, outermost first; of an `else` branch, the negated condition.
    pub(super) conditions: Vec<String>,
    /// The `case` labels it stands under, outermost first.
    pub(super) cases: Vec<Label>,
    /// The `#ifdef`s around it.
    pub(super) config: Vec<String>,
    /// The line in the file, from 1.
    pub(super) line: usize,
}

/// A `case` label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// The expression of the `switch`.
    pub(super) of: String,
    /// The label's own expression.
    pub(super) value: String,
}

impl Statement {
    /// Whether it stands under `case value` of `switch (of)`.
    pub(super) fn under(&self, of: &str, value: &str) -> bool {
        self.cases.iter().any(|label| label.of == of && label.value == value)
    }
}

/// The length of the string literal at the start; up to the end of the line if it does not end there.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return index,
            '"' if !escaped => return index + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// Where the body of the function `name` starts and ends, without its braces.
pub(super) fn function_body(code: &str, name: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(found) = code.get(from..)?.find(name) {
        let at = from + found;
        from = at + name.len();
        let own_word = !code.get(..at)?.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !own_word || !code.get(from..)?.starts_with('(') {
            continue;
        }
        let close = closing(code, from)?;
        let after = code.get(close + 1..)?;
        let brace = close + 1 + (after.len() - after.trim_start().len());
        if code.get(brace..)?.starts_with('{') {
            return Some((brace + 1, closing(code, brace)?));
        }
    }
    None
}

/// All function bodies: in the kernel's style, what stands between braces in the first column.
pub(super) fn all_bodies(code: &str) -> impl Iterator<Item = (usize, usize)> {
    code.match_indices("\n{").filter_map(|(at, _)| {
        let end = at + 2 + code.get(at + 2..)?.find("\n}")?;
        Some((at + 2, end))
    })
}

/// The position of the bracket that closes the one at `open`.
pub(super) fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut position = open;
    let bytes = code.as_bytes();
    while let Some(&byte) = bytes.get(position) {
        match byte {
            b'(' | b'{' | b'[' => depth += 1,
            b')' | b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(position);
                }
            }
            b'"' => position += string_length(code.get(position..)?) - 1,
            _ => {}
        }
        position += 1;
    }
    None
}

/// The text with single blanks.
pub(super) fn tidy(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Statements {
    /// Reads the statements between two positions of a file.
    ///
    /// # Errors
    /// The position at which something does not end, or nests too deep.
    pub(super) fn parse(code: &str, start: usize, end: usize) -> Result<Self, usize> {
        let code = code.get(..end).ok_or(start)?;
        let mut parser = Parser { code, at: start, config: Vec::new(), out: Self::default() };
        let around = Around::default();
        while parser.skip_blanks() {
            parser.statement(&mut around.clone(), 0)?;
        }
        Ok(parser.out)
    }
}

/// What stands around a statement.
#[derive(Clone, Default)]
struct Around {
    conditions: Vec<String>,
    cases: Vec<Label>,
    /// The innermost `switch`: its expression, and how many of `cases` lie outside it.
    switch: Option<(String, usize)>,
    /// Whether the last thing was a label, so that the next label joins it.
    after_label: bool,
}

struct Parser<'a> {
    code: &'a str,
    at: usize,
    config: Vec<String>,
    out: Statements,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.code.get(self.at..).unwrap_or("")
    }

    /// Skips blanks and preprocessor lines; false at the end.
    fn skip_blanks(&mut self) -> bool {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            if !self.rest().starts_with('#') {
                return !self.rest().is_empty();
            }
            self.preprocessor();
        }
    }

    /// One preprocessor line. The first branch of an `#if` is taken, except of `#ifndef`.
    fn preprocessor(&mut self) {
        let line = self.take_line();
        let mut words = line.trim_start_matches('#').split_whitespace();
        match words.next() {
            Some("if" | "ifdef") => self.config.push(words.collect::<Vec<_>>().join(" ")),
            Some("ifndef") => {
                self.config.push(format!("!{}", words.collect::<Vec<_>>().join(" ")));
                self.skip_branch();
            }
            Some("else" | "elif") => {
                self.skip_branch();
            }
            Some("endif") => {
                self.config.pop();
            }
            _ => {}
        }
    }

    /// Skips to the line that ends this branch of an `#if`; of `#endif`, the line itself stays.
    fn skip_branch(&mut self) {
        let mut depth = 0_usize;
        while !self.rest().is_empty() {
            let before = self.at;
            let line = self.take_line();
            let line = line.trim_start();
            if line.starts_with("#if") {
                depth += 1;
            } else if line.starts_with("#endif") {
                if depth == 0 {
                    self.at = before;
                    return;
                }
                depth -= 1;
            } else if line.starts_with("#else") && depth == 0 {
                return;
            }
        }
    }

    fn take_line(&mut self) -> String {
        let rest = self.rest();
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let line = rest.get(..length).unwrap_or("").to_owned();
        self.at += length;
        line
    }

    /// The word at this position, and nothing taken.
    fn word(&self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest.get(..end).unwrap_or("")
    }

    /// What stands in the brackets that open here (after blanks), which are taken.
    fn brackets(&mut self) -> Result<String, usize> {
        self.skip_blanks();
        let open = self.at;
        let close = closing(self.code, open).ok_or(open)?;
        self.at = close + 1;
        Ok(tidy(self.code.get(open + 1..close).unwrap_or("")))
    }

    fn statement(&mut self, around: &mut Around, depth: usize) -> Result<(), usize> {
        if depth > MAX_DEPTH {
            return Err(self.at);
        }
        self.skip_blanks();
        if self.rest().starts_with('{') {
            return self.block(around, depth);
        }
        match self.word() {
            "if" => self.branch(around, depth),
            "switch" => {
                self.at += "switch".len();
                let of = self.brackets()?;
                let mut inner = around.clone();
                inner.switch = Some((of, around.cases.len()));
                inner.after_label = false;
                self.statement(&mut inner, depth + 1)
            }
            word @ ("for" | "while") => {
                self.at += word.len();
                self.brackets()?;
                self.statement(&mut around.clone(), depth + 1)
            }
            word @ ("do" | "else") => {
                self.at += word.len();
                self.statement(&mut around.clone(), depth + 1)
            }
            "case" => self.case(around),
            "default" => {
                self.at += self.rest().find(':').ok_or(self.at)? + 1;
                if let Some((_, outside)) = &around.switch
                    && !around.after_label
                {
                    around.cases.truncate(*outside);
                }
                around.after_label = true;
                Ok(())
            }
            word => {
                let length = word.len();
                let after = self.rest().get(length..).unwrap_or("");
                if length > 0 && after.trim_start().starts_with(':') {
                    self.at += length + after.find(':').unwrap_or(0) + 1;
                    around.after_label = true;
                    return Ok(());
                }
                self.simple(around)
            }
        }
    }

    /// A block: what its labels change stays inside.
    fn block(&mut self, around: &mut Around, depth: usize) -> Result<(), usize> {
        let open = self.at;
        self.at += 1;
        let mut inner = around.clone();
        while self.skip_blanks() {
            if self.rest().starts_with('}') {
                self.at += 1;
                around.after_label = false;
                return Ok(());
            }
            self.statement(&mut inner, depth + 1)?;
        }
        Err(open)
    }

    fn branch(&mut self, around: &mut Around, depth: usize) -> Result<(), usize> {
        self.at += "if".len();
        let condition = self.brackets()?;
        let mut inner = around.clone();
        inner.conditions.push(condition.clone());
        self.statement(&mut inner, depth + 1)?;
        self.skip_blanks();
        if self.word() == "else" {
            self.at += "else".len();
            let mut inner = around.clone();
            inner.conditions.push(format!("!({condition})"));
            self.statement(&mut inner, depth + 1)?;
        }
        around.after_label = false;
        Ok(())
    }

    fn case(&mut self, around: &mut Around) -> Result<(), usize> {
        self.at += "case".len();
        let rest = self.rest();
        let length = rest.find(':').ok_or(self.at)?;
        let value = tidy(rest.get(..length).unwrap_or(""));
        self.at += length + 1;
        if let Some((of, outside)) = &around.switch {
            let label = Label { of: of.clone(), value };
            if !around.after_label {
                around.cases.truncate(*outside);
            }
            around.cases.push(label.clone());
            self.out.labels.push(label);
        }
        around.after_label = true;
        Ok(())
    }

    fn simple(&mut self, around: &mut Around) -> Result<(), usize> {
        let start = self.at;
        let bytes = self.code.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b';' => break,
                b'(' | b'{' | b'[' => self.at = closing(self.code, self.at).ok_or(start)? + 1,
                b'"' => self.at += string_length(self.rest()),
                b'}' | b')' | b']' => return Err(start),
                _ => self.at += 1,
            }
        }
        let text = tidy(self.code.get(start..self.at).unwrap_or(""));
        self.at += 1;
        around.after_label = false;
        if !text.is_empty() {
            self.out.list.push(Statement {
                text,
                conditions: around.conditions.clone(),
                cases: around.cases.clone(),
                config: self.config.clone(),
                line: super::line_of(self.code, start),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Vec<(String, Vec<String>)> {
        let statements = Statements::parse(body, 0, body.len()).unwrap();
        let cases = |s: &Statement| s.cases.iter().map(|label| format!("@{}", label.value)).collect::<Vec<_>>();
        statements.list.iter().map(|s| (s.text.clone(), [s.conditions.clone(), cases(s)].concat())).collect()
    }

    fn one(text: &str, around: &[&str]) -> (String, Vec<String>) {
        (text.to_owned(), around.iter().map(|&a| a.to_owned()).collect())
    }

    #[test]
    fn conditions_and_labels_are_kept() {
        let body = "a(); if (x &&\n  y) b(); else { c(); if (z) d(); } for (;;) e();\n\
                    switch (f) { case 1: case 2: g(); break; default: h(); case 3: { i(); } out: j(); } k();";
        assert_eq!(
            parse(body),
            [
                one("a()", &[]),
                one("b()", &["x && y"]),
                one("c()", &["!(x && y)"]),
                one("d()", &["!(x && y)", "z"]),
                one("e()", &[]),
                one("g()", &["@1", "@2"]),
                one("break", &["@1", "@2"]),
                one("h()", &[]),
                one("i()", &["@3"]),
                one("j()", &["@3"]),
                one("k()", &[]),
            ]
        );
    }

    #[test]
    fn the_first_branch_of_an_ifdef_is_taken() {
        let body = "#ifdef CONFIG_X86_64\n a = 1;\n#else\n a = 0;\n#endif\n#ifndef B\n b = 1;\n#endif\n c = 1;";
        let statements = Statements::parse(body, 0, body.len()).unwrap();
        let seen: Vec<_> = statements.list.iter().map(|s| (s.text.as_str(), s.config.join(","))).collect();
        assert_eq!(seen, [("a = 1", "CONFIG_X86_64".to_owned()), ("c = 1", String::new())]);
    }

    #[test]
    fn what_does_not_end_is_an_error_and_never_a_panic() {
        for body in ["if (", "if (a) {", "switch (a) { case 1", "a(", "}", "\"", &"{".repeat(1000), "case 1", "é(;"] {
            assert!(Statements::parse(body, 0, body.len()).is_err() || !body.contains(['(', '{', '}']), "{body}");
        }
    }

    #[test]
    fn a_function_is_found_by_its_definition() {
        let code = "int f(int a);\nint gf(int a)\n{\n no();\n}\nint f(int a)\n{ yes();\n}\n";
        let (start, end) = function_body(code, "f").unwrap();
        assert_eq!(&code[start..end], " yes();\n");
        assert_eq!(function_body(code, "h"), None);
        assert_eq!(all_bodies(code).count(), 2);
    }
}
