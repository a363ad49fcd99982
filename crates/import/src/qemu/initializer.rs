//! Initializers of C: `{ .name = "x", [3] = 1, { ... } }`.

/// An element of a list in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// `.features[FEAT_SVM]`, `[0x06]`; empty if there is none.
    pub(super) designator: &'a str,
    /// The value.
    pub(super) value: &'a str,
}

/// What follows the braces at whose start `text` stands, up to the brace that closes them.
fn inside(text: &str) -> Option<&str> {
    let body = text.strip_prefix('{')?;
    let mut depth = 0_u32;
    for (at, character) in outside_strings(body) {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => return body.get(..at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The elements of the first list in braces that follows `head` in a text without comments.
pub(super) fn list<'a>(text: &'a str, head: &str) -> Option<Vec<Element<'a>>> {
    let after = text.get(text.find(head)? + head.len()..)?;
    nested(after)
}

/// The elements of the first list in braces of a value: `(PropValue[]) { ... }`, `&(CPUCacheInfo) { ... }`.
pub(super) fn nested(value: &str) -> Option<Vec<Element<'_>>> {
    Some(split(inside(value.get(value.find('{')?..)?)?))
}

fn split(body: &str) -> Vec<Element<'_>> {
    let mut found = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (at, character) in outside_strings(body) {
        match character {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.extend(element(body.get(start..at).unwrap_or_default()));
                start = at + 1;
            }
            _ => {}
        }
    }
    found.extend(element(body.get(start..).unwrap_or_default()));
    found
}

fn element(text: &str) -> Option<Element<'_>> {
    let text = text.trim();
    let (designator, value) = match text.split_once('=') {
        Some((designator, value)) if text.starts_with(['.', '[']) => (designator.trim(), value.trim()),
        _ => ("", text),
    };
    (!text.is_empty()).then_some(Element { designator, value })
}

/// The characters of a text that stand in no string literal, with their positions.
fn outside_strings(text: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut within, mut escaped) = (false, false);
    text.char_indices().filter(move |&(_, character)| {
        let was_within = within;
        match character {
            '"' if !escaped => within = !within,
            _ => {}
        }
        escaped = within && character == '\\' && !escaped;
        !was_within && character != '"'
    })
}

/// The value of the element with this designator.
pub(super) fn field<'a>(elements: &[Element<'a>], designator: &str) -> Option<&'a str> {
    elements.iter().find(|element| element.designator == designator).map(|element| element.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_fields() {
        let text = r#"static T t[] = { [1] = { .a = "x, }\" {", .b[F(1, 2)] = A | B, }, { 3, "y" }, };"#;
        let rows = list(text, "t[] =").unwrap();
        assert_eq!(rows.iter().map(|row| row.designator).collect::<Vec<_>>(), ["[1]", ""]);
        let first = nested(rows[0].value).unwrap();
        assert_eq!(field(&first, ".a"), Some(r#""x, }\" {""#));
        assert_eq!(field(&first, ".b[F(1, 2)]"), Some("A | B"));
        assert_eq!(nested(rows[1].value).unwrap().len(), 2);
        assert_eq!(list("t = { 1, ", "t ="), None);
        assert_eq!(list("t = 1", "t ="), None);
    }
}
