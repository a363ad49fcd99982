//! Rows as kinds of hosts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use cpusieve_fleet::{Ground, Kind, Member, Offer, Software, Unnamed};
use cpusieve_knowledge::qemu::WORD_COUNT;
use cpusieve_model::Vendor;
use serde_json::Value;

use crate::columns::Column;
use crate::file::{Members, Part};
use crate::texts::{Flags, Lists, Numbers, Texts};
use crate::{Error, Packed};

/// All rows of a file, one after the other.
pub struct Rows<'p> {
    parts: std::vec::IntoIter<Columns<'p>>,
    now: Option<Columns<'p>>,
    next: usize,
}

/// One row.
#[derive(Clone, Copy)]
pub struct Row<'p, 'r> {
    columns: &'r Columns<'p>,
    at: usize,
}

/// The columns of a batch.
pub(crate) struct Columns<'p> {
    rows: usize,
    hosts: Numbers<'p>,
    vendor: Texts<'p>,
    signature: Numbers<'p>,
    phys_bits: Numbers<'p>,
    words: Vec<(&'static Column, Numbers<'p>)>,
    record: Texts<'p>,
    lists: Lists<'p>,
    members: Fields<'p>,
}

/// The fields of the hosts of a batch.
struct Fields<'p> {
    name: Texts<'p>,
    tsc_khz: Numbers<'p>,
    nested: Flags<'p>,
    kernel: Texts<'p>,
    cmdline: Texts<'p>,
    microcode: Numbers<'p, 8>,
    params: Texts<'p>,
}

impl<'p> Fields<'p> {
    fn of(members: Members<'p>) -> Result<Self, Error> {
        Ok(Self {
            name: members.texts("name")?,
            tsc_khz: members.numbers("tsc_khz")?,
            nested: members.flags("nested")?,
            kernel: members.texts("kernel")?,
            cmdline: members.texts("cmdline")?,
            microcode: members.longs("microcode")?,
            params: members.texts("params")?,
        })
    }
}

impl<'p> Columns<'p> {
    fn of(packed: &'p Packed, part: Part<'p>) -> Result<Self, Error> {
        let words = packed.words().into_iter().map(|(column, at)| Ok((column, part.word(at)?)));
        let (lists, members) = part.members()?;
        let columns = Self {
            rows: part.rows(),
            hosts: part.numbers("hosts")?,
            vendor: part.texts("vendor")?,
            signature: part.numbers("signature")?,
            phys_bits: part.numbers("phys_bits")?,
            words: words.collect::<Result<_, Error>>()?,
            record: part.texts("record")?,
            lists,
            members: Fields::of(members)?,
        };
        columns.each_member_once()?;
        Ok(columns)
    }

    /// A file that gives a host to several rows, or hosts that are not there, would have no end.
    fn each_member_once(&self) -> Result<(), Error> {
        let mut next = 0;
        for at in 0..self.rows {
            let list = self.lists.get(at).filter(|list| list.start == next);
            next = list.ok_or(Error::Damaged("the lists of `members`"))?.end;
        }
        let all = self.members.tsc_khz.all().len();
        if next <= all { Ok(()) } else { Err(Error::Damaged("the lists of `members`")) }
    }
}

impl Packed {
    /// The rows, one after the other.
    ///
    /// # Errors
    /// If a column is missing or damaged.
    pub fn iter(&self) -> Result<Rows<'_>, Error> {
        let parts = self.parts().map(|part| Columns::of(self, part)).collect::<Result<Vec<_>, _>>()?;
        Ok(Rows { parts: parts.into_iter(), now: None, next: 0 })
    }
}

impl<'p> Rows<'p> {
    /// The next row; `None` after the last. (A row borrows from the batch, so this is no `Iterator`.)
    pub fn next_row(&mut self) -> Option<Row<'p, '_>> {
        while self.now.as_ref().is_none_or(|now| self.next >= now.rows) {
            self.now = Some(self.parts.next()?);
            self.next = 0;
        }
        let at = self.next;
        self.next += 1;
        self.now.as_ref().map(|columns| Row { columns, at })
    }
}

impl Row<'_, '_> {
    /// The number of hosts.
    #[must_use]
    pub fn hosts(self) -> u32 {
        self.columns.hosts.get(self.at).unwrap_or(0)
    }

    /// What they offer.
    #[must_use]
    pub fn offer(self) -> Offer {
        let mut offer = Offer { words: [0; WORD_COUNT], own: [0; WORD_COUNT], kvm: [0; WORD_COUNT], phys_bits: 0 };
        for (column, numbers) in &self.columns.words {
            let part = u64::from(numbers.get(self.at).unwrap_or(0)) << column.shift;
            column.set.of_mut(&mut offer)[column.at] |= part;
        }
        offer.phys_bits = self.columns.phys_bits.get(self.at).and_then(|bits| u8::try_from(bits).ok()).unwrap_or(0);
        offer
    }

    /// Their vendor.
    #[must_use]
    pub fn vendor(self) -> Vendor {
        Vendor::from_string(self.columns.vendor.get(self.at).unwrap_or(""))
    }

    /// 1.EAX: family, model and stepping.
    #[must_use]
    pub fn signature(self) -> u32 {
        self.columns.signature.get(self.at).unwrap_or(0)
    }

    /// One of them, to ask QEMU on, if the row keeps its record.
    #[must_use]
    pub fn ground(self) -> Option<Ground> {
        ground(self.columns.record, self.at)
    }

    /// The row as a kind of hosts; `asked` says whether QEMU will be asked on it.
    #[must_use]
    pub fn kind(self, asked: bool) -> Kind {
        let ground = if asked { self.ground() } else { None };
        let hosts = usize::try_from(self.hosts()).unwrap_or(usize::MAX);
        Kind { offer: self.offer(), vendor: self.vendor(), signature: self.signature(), ground, hosts }
    }

    /// The first `most` hosts.
    pub fn members(self, most: usize) -> impl Iterator<Item = Member> {
        let list = self.list();
        let end = list.start.saturating_add(most).min(list.end);
        (list.start..end).map(move |at| self.member(at))
    }

    /// What is kept of the hosts behind the first `most`; `None` if there are no more.
    #[must_use]
    pub fn unnamed(self, most: usize) -> Option<Unnamed> {
        let list = self.list();
        let more = list.start.saturating_add(most).min(list.end)..list.end;
        let hosts = usize::try_from(self.hosts()).unwrap_or(usize::MAX);
        // A row may count more hosts than it names; of those nothing is known.
        let nameless = hosts.saturating_sub(list.len());
        let fields = &self.columns.members;
        (hosts > most).then(|| Unnamed {
            tsc_khz: if nameless == 0 { span(fields.tsc_khz, more.clone()) } else { None },
            nested: more.filter(|&at| fields.nested.get(at)).count() as u64,
        })
    }

    fn list(self) -> Range<usize> {
        self.columns.lists.get(self.at).unwrap_or(0..0)
    }

    fn member(self, at: usize) -> Member {
        let fields = &self.columns.members;
        let text = |texts: Texts<'_>| texts.get(at).map(str::to_owned);
        let software = Software {
            kernel: text(fields.kernel),
            cmdline: text(fields.cmdline),
            microcode: fields.microcode.long(at),
            params: params(fields.params.get(at).unwrap_or("")),
        };
        Member {
            name: text(fields.name).unwrap_or_default(),
            kind: 0,
            tsc_khz: fields.tsc_khz.get(at).map(u64::from),
            nested: fields.nested.get(at),
            software: Arc::new(software),
        }
    }
}

/// What QEMU can be asked on, from a row's record.
pub(crate) fn ground(records: Texts<'_>, at: usize) -> Option<Ground> {
    let seen = cpusieve_formats::record::parse("record", records.bytes(at)?).snapshot;
    let cpuid = seen.cpus.into_iter().next()?.cpuid;
    Some(Ground { vendor: cpuid.vendor().unwrap_or(Vendor::Other), cpuid, view: seen.kvm? })
}

/// The lowest and the highest of some frequencies; `None` unless all are there.
pub(crate) fn span(khz: Numbers<'_>, range: Range<usize>) -> Option<(u64, u64)> {
    let mut span: Option<(u64, u64)> = None;
    for at in range {
        let khz = khz.get(at).filter(|&khz| khz > 0).map(u64::from)?;
        span = Some(span.map_or((khz, khz), |(lowest, highest)| (khz.min(lowest), khz.max(highest))));
    }
    span
}

fn params(text: &str) -> BTreeMap<String, String> {
    let Ok(Value::Object(params)) = serde_json::from_str(text) else { return BTreeMap::new() };
    params.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
}
