//! Hosts and guests from files and folders; what cannot be used is said and left out.

use std::path::PathBuf;

use cpusieve_answers::rehearse::{Guest, domain};
use cpusieve_formats::libvirt_xml;
use cpusieve_model::Snapshot;
use cpusieve_stages::linux::boot::Unlisted;

use crate::input::{self, InputError};
use crate::page;
use crate::verbs::Failure;
use crate::verbs::fleet::sources::{Content, Source, Sources};

/// The most hosts of one rehearsal: all of them are kept.
const MOST_HOSTS: usize = 10_000;

/// The most guests of one rehearsal: each is tried on every host.
const MOST_GUESTS: usize = 10_000;

/// A host that was read.
pub(super) struct Read {
    pub(super) name: String,
    pub(super) snapshot: Snapshot,
    pub(super) unlisted: Unlisted,
}

/// Inputs that could not be used, and why.
pub(super) type Skipped = Vec<(String, String)>;

fn content(source: Content, name: &str) -> Result<Vec<u8>, InputError> {
    match source {
        Content::File(path) => input::bytes(&path, name),
        Content::Bytes(bytes) => Ok(bytes),
        Content::Broken(error) => Err(error),
    }
}

fn skip(skipped: &mut Skipped, name: String, why: String) {
    page::warn(&format!("{why}; it is left out"));
    skipped.push((name, why));
}

/// The hosts.
pub(super) fn hosts(inputs: &[PathBuf]) -> Result<(Vec<Read>, Skipped), Failure> {
    let (mut hosts, mut skipped) = (Vec::new(), Vec::new());
    for Source { name, content: source } in Sources::of(inputs)? {
        if hosts.len() >= MOST_HOSTS {
            return Err(format!("more than {MOST_HOSTS} hosts: rehearse on one of each kind").into());
        }
        let read = content(source, &name).and_then(|bytes| {
            let (read, diagnostics) = input::understand(&name, &bytes);
            input::show(&diagnostics);
            read
        });
        match read {
            Ok((snapshot, unlisted)) => hosts.push(Read { name, snapshot, unlisted }),
            Err(error) => skip(&mut skipped, name, error.to_string()),
        }
    }
    Ok((hosts, skipped))
}

/// The guests of libvirt's domains.
pub(super) fn domains(inputs: &[PathBuf]) -> Result<(Vec<Guest>, Skipped), Failure> {
    let (mut guests, mut skipped): (Vec<Guest>, Skipped) = (Vec::new(), Vec::new());
    for Source { name, content: source } in Sources::of(inputs)? {
        if guests.len() >= MOST_GUESTS {
            return Err(format!("more than {MOST_GUESTS} guests: rehearse with one of each kind").into());
        }
        let bytes = match content(source, &name) {
            Ok(bytes) => bytes,
            Err(error) => {
                skip(&mut skipped, name, error.to_string());
                continue;
            }
        };
        let (read, mut diagnostics) = libvirt_xml::domain(&name, &bytes);
        match read {
            Some(read) => {
                input::show(&diagnostics);
                guests.push(domain::guest(&read, &name));
            }
            None => {
                let why = if diagnostics.is_empty() {
                    format!("{name}: no domain")
                } else {
                    diagnostics.remove(0).to_string()
                };
                input::show(&diagnostics);
                skip(&mut skipped, name, why);
            }
        }
    }
    Ok((guests, skipped))
}
