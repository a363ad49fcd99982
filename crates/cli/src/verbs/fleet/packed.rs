//! Files of `fleet pack` as inputs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use cpusieve_answers::predict::Assumption;
use cpusieve_fleet::{Fleet, Setting};
use cpusieve_probe::Mapped;
use cpusieve_store::{Stamp, from_parquet, is_arrow, is_parquet, stamp_of_parquet};

use super::load::{Detail, Seen};
use crate::args::FleetSetting;

pub(super) use cpusieve_store::Packed;

/// Kinds of hosts that are kept one by one; of more, their sum.
const MOST_KINDS: usize = 4096;

/// Kinds of hosts up to which QEMU is asked on every one that keeps a record, as it is for other inputs.
const ALL_ASKED: usize = 256;

/// Kinds that QEMU is asked on beyond that: the first of so many vendors and signatures.
const MOST_ASKED: usize = 32;

/// Hosts that are kept one by one.
const MOST_MEMBERS: usize = 20_000;

/// Hosts of a kind that are kept if there are more: one stands for all.
const NAMED: usize = 1;

/// Whether a file is packed by its name: such a file may be larger than any other input.
pub(super) fn is_named(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("arrow") || end.eq_ignore_ascii_case("parquet"))
}

/// Whether these bytes are a packed file's.
pub(super) fn is_packed(bytes: &[u8]) -> bool {
    is_arrow(bytes) || is_parquet(bytes)
}

/// Takes the software from the first packed file among the inputs if the options name no QEMU, and says what was taken.
pub(super) fn adopt<'p>(options: &mut FleetSetting, inputs: impl IntoIterator<Item = &'p Path>) -> Option<Assumption> {
    let path = inputs.into_iter().find(|path| is_named(path)).filter(|_| options.qemu.is_none())?;
    let stamp = stamp(path)?;
    let words = stamp.words();
    options.qemu = Some(stamp.qemu);
    options.machine = options.machine.take().or(Some(stamp.machine));
    options.host_kernel = options.host_kernel.take().or(stamp.kernel);
    if options.kvm_params.is_empty() {
        options.kvm_params = stamp.params;
    }
    let because = format!("{} was packed for it", path.display());
    Some(Assumption { what: "software".to_owned(), value: words, because, hangs: Vec::new() })
}

/// For which software a file was packed; `None` if it cannot be read, which is said when its hosts are.
fn stamp(path: &Path) -> Option<Stamp> {
    let bytes = bytes::Bytes::from_owner(Mapped::of(&File::open(path).ok()?).ok()?);
    if is_parquet(&bytes) { stamp_of_parquet(bytes).ok() } else { Some(Packed::open(bytes).ok()?.stamp().clone()) }
}

/// Maps a file; one whose words are for other software is an error.
pub(super) fn open(path: &Path, setting: &Setting<'_>) -> Result<Packed, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let mapped = Mapped::of(&file);
    let bytes = match mapped {
        Ok(mapped) => bytes::Bytes::from_owner(mapped),
        Err(_) => {
            let mut bytes = Vec::new();
            let limit = cpusieve_formats::limits::MAX_FILE as u64;
            file.by_ref().take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            bytes.into()
        }
    };
    of(bytes, setting)
}

/// The same of bytes that were read.
pub(super) fn of_bytes(bytes: Vec<u8>, setting: &Setting<'_>) -> Result<Packed, String> {
    of(bytes.into(), setting)
}

fn of(bytes: bytes::Bytes, setting: &Setting<'_>) -> Result<Packed, String> {
    let packed = if is_parquet(&bytes) { from_parquet(bytes) } else { Packed::open(bytes) };
    let packed = packed.map_err(|error| error.to_string())?;
    packed.stamp().answers(&Stamp::of(setting)).map_err(|error| error.to_string())?;
    Ok(packed)
}

/// Takes the hosts of a file in, all of them or none.
pub(super) fn take(
    packed: &Packed,
    fleet: &mut Fleet,
    detail: Detail,
    see: &mut impl FnMut(Seen<'_>),
) -> Result<(), String> {
    let kinds = packed.rows().saturating_add(fleet.kinds().len());
    if detail == Detail::Bounded && kinds > MOST_KINDS {
        let sum = packed.sum().map_err(|error| error.to_string())?;
        fleet.push_rest(sum.rest);
        fleet.push_unnamed(sum.unnamed);
    } else {
        let mut rows = packed.iter().map_err(|error| error.to_string())?;
        let hosts = packed.hosts().map_err(|error| error.to_string())?;
        let hosts = usize::try_from(hosts).unwrap_or(usize::MAX).saturating_add(fleet.members().len());
        let most = if detail == Detail::Bounded && hosts > MOST_MEMBERS { NAMED } else { usize::MAX };
        let mut met = BTreeSet::new();
        while let Some(row) = rows.next_row() {
            let first = met.len() < MOST_ASKED && met.insert((row.vendor(), row.signature()));
            let kind = row.kind(detail == Detail::Whole || kinds <= ALL_ASKED || first);
            let members: Vec<_> = row.members(most).collect();
            members.iter().for_each(|member| see(Seen::Member(member, &kind)));
            if let Some(unnamed) = row.unnamed(most) {
                fleet.push_unnamed(unnamed);
            }
            fleet.push_kind(kind, members);
        }
    }
    packed.assumed().iter().for_each(|assumed| fleet.assume(assumed.clone()));
    Ok(())
}
