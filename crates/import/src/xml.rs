//! Enough of XML to read files that their project generates: tags with attributes, without text, entities or name spaces.

/// What a tag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `<a>`
    Open,
    /// `</a>`
    Close,
    /// `<a/>`
    Empty,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag<'t> {
    /// The element's name.
    pub(crate) name: &'t str,
    /// What it is.
    pub(crate) kind: Kind,
    attributes: Vec<(&'t str, &'t str)>,
}

impl<'t> Tag<'t> {
    /// The value of an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&'t str> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Reads what stands between `<` and `>`.
    fn parse(inner: &'t str) -> Self {
        let (inner, kind) = match (inner.strip_prefix('/'), inner.strip_suffix('/')) {
            (Some(name), _) => (name, Kind::Close),
            (None, Some(empty)) => (empty, Kind::Empty),
            (None, None) => (inner, Kind::Open),
        };
        let (name, mut rest) = inner.split_once(char::is_whitespace).unwrap_or((inner, ""));
        let mut attributes = Vec::new();
        while let Some((name, after)) = rest.split_once('=') {
            let after = after.trim_start();
            let Some(quote) = after.chars().next().filter(|quote| matches!(quote, '\'' | '"')) else { break };
            let Some((value, after)) = after[1..].split_once(quote) else { break };
            attributes.push((name.trim(), value));
            rest = after;
        }
        Self { name, kind, attributes }
    }
}

/// The tags of a text, in its order; comments and declarations are passed over.
pub(crate) fn tags(text: &str) -> impl Iterator<Item = Tag<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once('<')?;
            if let Some(comment) = after.strip_prefix("!--") {
                (_, rest) = comment.split_once("-->")?;
                continue;
            }
            let (inner, after) = after.split_once('>')?;
            rest = after;
            if !inner.starts_with(['!', '?']) {
                return Some(Tag::parse(inner));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_and_comments_are_not() {
        let text = "<?xml version='1.0'?>\n<!-- <a x='1'/> -->\n<b c='d e'  f=\"g\">text<h/></b>\n<unfinished";
        let found: Vec<Tag<'_>> = tags(text).collect();
        let kinds: Vec<_> = found.iter().map(|tag| (tag.name, tag.kind)).collect();
        assert_eq!(kinds, [("b", Kind::Open), ("h", Kind::Empty), ("b", Kind::Close)]);
        assert_eq!((found[0].attribute("c"), found[0].attribute("f")), (Some("d e"), Some("g")));
        assert_eq!(found[1].attribute("c"), None);
    }
}
