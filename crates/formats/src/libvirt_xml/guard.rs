//! What is kept away from the XML parser, whose checks of attributes and name spaces take quadratic time, and what is
//! given to it a second time.

use roxmltree::TextPos;

use crate::limits::MAX_XML_ATTRIBUTES;

/// Elements with name spaces of their own: libvirt has one (`qemu`), on the root.
const MAX_NAME_SPACES: usize = 16;

/// The place of an element with too many attributes, or of a name space too many, if there is one.
pub(super) fn excess(text: &[u8]) -> Option<usize> {
    let mut rest = text;
    let mut name_spaces = 0;
    while let Some(start) = rest.iter().position(|&byte| byte == b'<') {
        rest = rest.get(start..)?;
        let here = text.len() - rest.len();
        if rest.starts_with(b"<!--") {
            let end = rest.windows(3).position(|window| window == b"-->")?;
            rest = rest.get(end..)?;
            continue;
        }
        let (length, attributes) = tag(rest);
        let (tag, after) = rest.split_at(length);
        name_spaces += if attributes == 0 { 0 } else { tag.windows(5).filter(|&window| window == b"xmlns").count() };
        if attributes > MAX_XML_ATTRIBUTES || name_spaces > MAX_NAME_SPACES {
            return Some(here);
        }
        rest = after;
    }
    None
}

/// The length of the tag that starts here, and how many `=` stand in it outside of quotation marks.
fn tag(text: &[u8]) -> (usize, usize) {
    let (mut quote, mut attributes) = (None, 0);
    for (at, &byte) in text.iter().enumerate().skip(1) {
        match (quote, byte) {
            (None, b'>') => return (at + 1, attributes),
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'=') => attributes += 1,
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    (text.len(), attributes)
}

/// The byte at a row and column, which are counted from 1; columns in characters.
pub(super) fn offset(text: &str, place: TextPos) -> usize {
    let index = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
    let start: usize = text.split_inclusive('\n').take(index(place.row)).map(str::len).sum();
    let line = text.get(start..).unwrap_or_default();
    start + line.char_indices().nth(index(place.col)).map_or(line.len(), |(at, _)| at)
}

/// The elements of a `<cpudata>` before a place, closed; none if there is no whole element.
pub(super) fn until(text: &str, place: usize) -> Option<String> {
    let whole = text.get(..place)?;
    let whole = whole.get(..whole.rfind("/>")? + 2)?;
    Some(format!("{whole}</cpudata>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_with_more_attributes_than_any_of_libvirts_is_found() {
        let attributes = |count: usize| (0..count).map(|n| format!(" a{n}='<=>'")).collect::<String>();
        let text = |count| format!("<!-- ={} --><a><b{}/></a>", "=".repeat(100), attributes(count));
        assert_eq!(excess(text(MAX_XML_ATTRIBUTES).as_bytes()), None);
        let over = text(MAX_XML_ATTRIBUTES + 1);
        assert_eq!(excess(over.as_bytes()), over.find("<b"));
    }

    #[test]
    fn name_spaces_are_counted_over_the_whole_input() {
        let text = |count: usize| "<a xmlns:b='c'>".repeat(count);
        assert_eq!(excess(text(MAX_NAME_SPACES).as_bytes()), None);
        assert!(excess(text(MAX_NAME_SPACES + 1).as_bytes()).is_some());
    }
}
