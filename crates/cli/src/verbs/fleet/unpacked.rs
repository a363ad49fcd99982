//! Files of `fleet pack` in a program that was built without them.

use std::path::Path;

use cpusieve_answers::predict::Assumption;
use cpusieve_fleet::{Fleet, Setting};

use super::load::{Detail, Seen};
use crate::args::FleetSetting;

const WITHOUT: &str = "this program was built without packed fleets (the feature `store`)";

/// There are none.
pub(super) enum Packed {}

pub(super) fn is_named(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("arrow") || end.eq_ignore_ascii_case("parquet"))
}

pub(super) fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(b"ARROW1") || bytes.starts_with(b"PAR1")
}

/// Nothing is known of a packed file.
pub(super) fn adopt<'p>(_: &mut FleetSetting, _: impl IntoIterator<Item = &'p Path>) -> Option<Assumption> {
    None
}

pub(super) fn open(_: &Path, _: &Setting<'_>) -> Result<Packed, String> {
    Err(WITHOUT.to_owned())
}

pub(super) fn of_bytes(_: Vec<u8>, _: &Setting<'_>) -> Result<Packed, String> {
    Err(WITHOUT.to_owned())
}

pub(super) fn take(packed: &Packed, _: &mut Fleet, _: Detail, _: &mut impl FnMut(Seen<'_>)) -> Result<(), String> {
    match *packed {}
}
