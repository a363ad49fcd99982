//! Writing the table.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::Compression;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use arrow_array::{ArrayRef, BooleanArray, ListArray, RecordBatch, StringArray, StructArray, UInt32Array, UInt64Array};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_ipc::writer::FileWriter;
use arrow_schema::SchemaRef;
use cpusieve_fleet::{Assumed, Fleet, Ground, Kind, Member};
use cpusieve_model::{Cpu, Snapshot, Vendor};
use serde_json::{Value, json};

use crate::columns::{columns, member_field, member_fields, schema};
use crate::{Error, Stamp};

/// Rows of a batch: a file is read batch by batch, and each column of a batch lies in one piece.
const BATCH: usize = 1 << 16;

/// Rows that keep a record to ask QEMU on. Half of them are for the first of each vendor and signature.
pub const MOST_RECORDS: usize = 4096;

/// The key of the metadata that says what was assumed.
pub(crate) const ASSUMED: &str = "cpusieve.assumed";

enum Sink<W: Write + Send> {
    Arrow(Box<FileWriter<W>>),
    Parquet(Box<ArrowWriter<W>>),
}

/// Writes kinds of hosts, batch by batch.
pub struct Writer<W: Write + Send> {
    sink: Sink<W>,
    schema: SchemaRef,
    kinds: Vec<(Kind, Option<String>)>,
    members: Vec<Vec<Member>>,
    records: usize,
    signatures: BTreeSet<(Vendor, u32)>,
}

impl<W: Write + Send> Writer<W> {
    /// To an Arrow file (IPC, not compressed), which is read by mapping it.
    ///
    /// # Errors
    /// If the start of the file cannot be written.
    pub fn arrow(out: W, stamp: &Stamp) -> Result<Self, Error> {
        let schema = schema(stamp);
        Ok(Self::to(Sink::Arrow(Box::new(FileWriter::try_new(out, &schema)?)), schema))
    }

    /// To a Parquet file.
    ///
    /// # Errors
    /// If the start of the file cannot be written.
    pub fn parquet(out: W, stamp: &Stamp) -> Result<Self, Error> {
        let schema = schema(stamp);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties))?;
        Ok(Self::to(Sink::Parquet(Box::new(writer)), schema))
    }

    fn to(sink: Sink<W>, schema: SchemaRef) -> Self {
        let (kinds, members, signatures) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { sink, schema, kinds, members, records: 0, signatures }
    }

    /// Adds a kind and its hosts.
    ///
    /// # Errors
    /// If a batch is full and cannot be written.
    pub fn push(&mut self, kind: Kind, members: Vec<Member>) -> Result<(), Error> {
        let record = kind.ground.as_ref().filter(|_| self.keeps(kind.vendor, kind.signature)).map(record);
        self.kinds.push((Kind { ground: None, ..kind }, record));
        self.members.push(members);
        if self.kinds.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    /// Whether another record is kept.
    fn keeps(&mut self, vendor: Vendor, signature: u32) -> bool {
        let limit = if self.signatures.insert((vendor, signature)) { MOST_RECORDS } else { MOST_RECORDS / 2 };
        let keeps = self.records < limit;
        self.records += usize::from(keeps);
        keeps
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.kinds.is_empty() {
            return Ok(());
        }
        let batch = batch(&self.schema, &self.kinds, &self.members)?;
        match &mut self.sink {
            Sink::Arrow(writer) => writer.write(&batch)?,
            Sink::Parquet(writer) => writer.write(&batch)?,
        }
        self.kinds.clear();
        self.members.clear();
        Ok(())
    }

    /// Writes what is left and what was assumed, and gives the destination back.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn finish(mut self, assumed: &[Assumed]) -> Result<W, Error> {
        self.flush()?;
        let all = assumed.iter().map(|assumed| {
            json!({
                "what": assumed.what, "value": assumed.value, "because": assumed.because, "hosts": assumed.hosts,
            })
        });
        let assumed = Value::from_iter(all).to_string();
        match self.sink {
            Sink::Arrow(mut writer) => {
                writer.write_metadata(ASSUMED, assumed);
                writer.finish()?;
                Ok(writer.into_inner()?)
            }
            Sink::Parquet(mut writer) => {
                writer.append_key_value_metadata(KeyValue::new(ASSUMED.to_owned(), assumed));
                Ok(writer.into_inner()?)
            }
        }
    }
}

/// Writes a whole fleet.
///
/// # Errors
/// If it cannot be written.
pub fn pack<W: Write + Send>(fleet: &Fleet, mut writer: Writer<W>) -> Result<W, Error> {
    let mut members: Vec<Vec<Member>> = vec![Vec::new(); fleet.kinds().len()];
    for member in fleet.members() {
        if let Some(of_kind) = members.get_mut(member.kind) {
            of_kind.push(member.clone());
        }
    }
    for (kind, members) in fleet.kinds().iter().zip(members) {
        writer.push(kind.clone(), members)?;
    }
    writer.finish(&fleet.assumed())
}

/// What QEMU can be asked on, as a record: the host's CPUID, and its KVM's answer, seen or predicted.
fn record(ground: &Ground) -> String {
    let cpu = Cpu { cpuid: ground.cpuid.clone(), ..Cpu::default() };
    let view = Some(ground.view.clone());
    cpusieve_formats::record::print(&Snapshot { cpus: vec![cpu], kvm: view, ..Snapshot::default() })
}

/// A vendor as CPUID says it; empty for one that has no name here.
fn announced(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Intel => "GenuineIntel",
        Vendor::Amd => "AuthenticAMD",
        Vendor::Hygon => "HygonGenuine",
        Vendor::Centaur => "CentaurHauls",
        Vendor::Zhaoxin => "  Shanghai  ",
        Vendor::Transmeta => "GenuineTMx86",
        Vendor::Other => "",
    }
}

fn batch(schema: &SchemaRef, kinds: &[(Kind, Option<String>)], members: &[Vec<Member>]) -> Result<RecordBatch, Error> {
    let numbers = |number: &dyn Fn(&Kind) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(kinds.iter().map(|(kind, _)| number(kind))))
    };
    let mut arrays = vec![
        numbers(&|kind| u32::try_from(kind.hosts).unwrap_or(u32::MAX)),
        texts(kinds.iter().map(|(kind, _)| Some(announced(kind.vendor))))?,
        numbers(&|kind| kind.signature),
        numbers(&|kind| kind.offer.phys_bits.into()),
    ];
    arrays.extend(columns().iter().map(|column| numbers(&|kind| column.part(column.set.of(&kind.offer)))));
    arrays.push(member_lists(members)?);
    arrays.push(texts(kinds.iter().map(|(_, record)| record.as_deref()))?);
    Ok(RecordBatch::try_new(Arc::clone(schema), arrays)?)
}

fn member_lists(members: &[Vec<Member>]) -> Result<ArrayRef, Error> {
    let all = || members.iter().flatten();
    let params = |member: &Member| {
        let params = &member.software.params;
        let object =
            || serde_json::Map::from_iter(params.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
        (!params.is_empty()).then(|| Value::Object(object()).to_string())
    };
    let params: Vec<Option<String>> = all().map(params).collect();
    let khz = |member: &Member| member.tsc_khz.and_then(|khz| u32::try_from(khz).ok());
    let fields: Vec<ArrayRef> = vec![
        texts(all().map(|member| Some(member.name.as_str())))?,
        Arc::new(UInt32Array::from_iter(all().map(khz))),
        Arc::new(BooleanArray::from_iter(all().map(|member| Some(member.nested)))),
        texts(all().map(|member| member.software.kernel.as_deref()))?,
        texts(all().map(|member| member.software.cmdline.as_deref()))?,
        Arc::new(UInt64Array::from_iter(all().map(|member| member.software.microcode))),
        texts(params.iter().map(Option::as_deref))?,
    ];
    let elements = StructArray::try_new_with_length(member_fields(), fields, None, all().count())?;
    let mut end = 0_i32;
    let mut offsets = vec![0];
    for of_kind in members {
        end = i32::try_from(of_kind.len()).ok().and_then(|more| end.checked_add(more)).ok_or(Error::TooLong)?;
        offsets.push(end);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(Arc::new(ListArray::try_new(member_field(), offsets, Arc::new(elements), None)?))
}

/// A column of texts. The crate ends the program where the offsets end, so that is looked at first.
fn texts<'t>(texts: impl Iterator<Item = Option<&'t str>> + Clone) -> Result<ArrayRef, Error> {
    let length: usize = texts.clone().flatten().map(str::len).sum();
    i32::try_from(length).map_err(|_| Error::TooLong)?;
    Ok(Arc::new(StringArray::from_iter(texts)))
}
