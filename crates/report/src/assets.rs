//! The page's own style and script, as they stand in `assets/`.

/// The page.
pub(crate) const PAGE_CSS: &str = include_str!("../assets/page.css");
/// The colours, and the pictures; enough for a picture in a file of its own.
pub(crate) const PICTURE_CSS: &str = include_str!("../assets/picture.css");
/// What makes the page answer to hand and keyboard. Without it everything is there and nothing moves.
pub(crate) const SCRIPT: &str = include_str!("../assets/page.js");
