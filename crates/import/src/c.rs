//! Reading C text without compiling it: comments, continued lines, definitions, array initializers, `#if` nests.
//!
//! The importers read a handful of tables whose shape is known. So nothing here understands C; each helper finds one
//! shape and keeps the line number at which it stood, for the error that names it.

mod conditions;

pub(crate) use conditions::Conditions;

/// A piece of C text and the line (from 1) on which it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The text, without blanks at its ends.
    pub(crate) text: String,
}

/// The text with every comment replaced by one blank; line breaks inside comments stay, so that lines keep their
/// numbers. String and character literals are left alone.
pub(crate) fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['/', '"', '\'']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(comment) = from.strip_prefix("/*") {
            let (inside, after) = comment.split_once("*/").unwrap_or((comment, ""));
            out.push(' ');
            out.extend(inside.chars().filter(|&character| character == '\n'));
            rest = after;
        } else if from.starts_with("//") {
            rest = from.find('\n').map_or("", |end| from.get(end..).unwrap_or(""));
        } else if from.starts_with('/') {
            out.push('/');
            rest = from.get(1..).unwrap_or("");
        } else {
            let (literal, after) = from.split_at(literal_length(from));
            out.push_str(literal);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The length of the string or character literal with which `text` starts. A literal that the line does not close ends
/// with its opening quote: it is an apostrophe in assembler or in a comment of another language.
fn literal_length(text: &str) -> usize {
    let mut characters = text.char_indices();
    let Some((_, quote)) = characters.next() else { return 0 };
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '\n' => break,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    1
}

/// The lines of a text, where a line that ends with a backslash goes on in the next.
pub(crate) fn logical_lines(text: &str) -> Vec<Piece> {
    let mut lines: Vec<Piece> = Vec::new();
    let mut continued = false;
    for (index, line) in text.lines().enumerate() {
        let (body, goes_on) = line.trim_end().strip_suffix('\\').map_or((line, false), |body| (body, true));
        match lines.last_mut() {
            Some(last) if continued => {
                last.text.push(' ');
                last.text.push_str(body.trim());
            }
            _ => lines.push(Piece { line: index + 1, text: body.trim().to_owned() }),
        }
        continued = goes_on;
    }
    lines
}

/// The name and the rest of a preprocessor line: `("define", "A 1")` of `# define A 1`.
pub(crate) fn directive(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start().strip_prefix('#')?.trim_start();
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    Some((name, rest.trim()))
}

/// Name and value of a macro without parameters.
pub(crate) fn define(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = directive(line)?;
    if name != "define" {
        return None;
    }
    let (name, value) = rest.split_at(rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()));
    (!name.is_empty() && !value.starts_with('(')).then(|| (name, value.trim()))
}

/// Whether a character can stand in a C identifier.
pub(crate) fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// All words of a text that start with `prefix`, without it.
pub(crate) fn words_with<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(|c: char| !is_word(c)).filter_map(move |word| word.strip_prefix(prefix)).filter(|word| !word.is_empty())
}

/// The elements between the braces that follow `head` (`cpuid_deps[] = `, `enum cpuid_leafs`), split at the commas of
/// the outermost level. None if `head` or its braces are not in the text. The text has no comments any more.
pub(crate) fn braced_list(text: &str, head: &str) -> Option<Vec<Piece>> {
    let start = text.find(head)?;
    let after = text.get(start + head.len()..)?;
    let open = after.find('{')?;
    let first_line = 1 + text.get(..start + head.len() + open)?.matches('\n').count();
    split_list(after.get(open + 1..)?, first_line)
}

/// The elements of a list in braces up to the brace that closes it.
fn split_list(text: &str, first_line: usize) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let (mut depth, mut line) = (0_u32, first_line);
    let mut current = Piece { line, text: String::new() };
    let mut finish = |piece: &mut Piece| {
        let text = std::mem::take(&mut piece.text).trim().to_owned();
        if !text.is_empty() {
            pieces.push(Piece { line: piece.line, text });
        }
    };
    for character in text.chars() {
        match character {
            '}' if depth == 0 => {
                finish(&mut current);
                return Some(pieces);
            }
            ',' if depth == 0 => {
                finish(&mut current);
                continue;
            }
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth = depth.saturating_sub(1),
            '\n' => line += 1,
            _ => {}
        }
        if current.text.is_empty() {
            if character.is_whitespace() {
                continue;
            }
            current.line = line;
        }
        current.text.push(character);
    }
    None
}

/// The fields of one element in braces: `{ A, 1 }`. None if there are no braces around it.
pub(crate) fn fields(element: &str) -> Option<Vec<&str>> {
    let inside = element.strip_prefix('{')?.strip_suffix('}')?;
    Some(inside.split(',').map(str::trim).filter(|field| !field.is_empty()).collect())
}

/// An unsigned number as C writes it, decimal or hexadecimal, with or without a suffix.
pub(crate) fn number(text: &str) -> Option<u32> {
    let digits = text.trim().trim_end_matches(['u', 'U', 'l', 'L']);
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// A sum of products of numbers, with or without parentheses around it: `( 9*32+ 5)`, `(3)`.
pub(crate) fn sum(text: &str) -> Option<u32> {
    let mut text = text.trim();
    while let Some(inside) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        text = inside.trim();
    }
    let product = |term: &str| term.split('*').try_fold(1_u32, |all, factor| all.checked_mul(number(factor)?));
    text.split('+').try_fold(0_u32, |all, term| all.checked_add(product(term)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(line: usize, text: &str) -> Piece {
        Piece { line, text: text.to_owned() }
    }

    #[test]
    fn comments_vanish_and_lines_stay() {
        assert_eq!(without_comments("a/* x\ny */b // c\n\"/*\" '\"' d/e"), "a \nb \n\"/*\" '\"' d/e");
        assert_eq!(without_comments("open /* end"), "open  ");
        assert_eq!(without_comments("don't /* x */ y"), "don't   y");
    }

    #[test]
    fn continued_lines_are_one() {
        assert_eq!(logical_lines("a \\\n  b\nc"), [piece(1, "a b"), piece(3, "c")]);
    }

    #[test]
    fn definitions() {
        assert_eq!(define("  # define  A\t(1 + 2)"), Some(("A", "(1 + 2)")));
        assert_eq!(define("#define F(x) x"), None);
        assert_eq!(define("#ifdef A"), None);
    }

    #[test]
    fn lists() {
        let text = "x\nint a[] = {\n { A, (1, 2) },\n\n B,\n};";
        assert_eq!(braced_list(text, "a[] = "), Some(vec![piece(3, "{ A, (1, 2) }"), piece(5, "B")]));
        assert_eq!(braced_list("a = { 1, ", "a ="), None);
        assert_eq!(fields("{ A, 1, }"), Some(vec!["A", "1"]));
    }

    #[test]
    fn sums() {
        assert_eq!(sum("( 9*32+ 5)"), Some(293));
        assert_eq!(sum("0x10U"), Some(16));
        assert_eq!(sum("1*32+x"), None);
        assert_eq!(sum("99999*99999"), None);
    }
}
