//! Where the columns of an Arrow file lie. Nothing is copied, and nothing is believed: every place is looked up.
//!
//! An Arrow file ends with a footer that holds the schema and, for each batch, where a table of buffers stands. A column
//! has as many buffers there as its type needs, in the order of the schema, so the buffers of a column have the same
//! numbers in every batch.

use std::collections::HashMap;

use arrow_ipc::{Block, Field as FbField, Type, root_as_footer, root_as_message};
use bytes::Bytes;
use cpusieve_fleet::Assumed;
use serde_json::Value;

use crate::columns::{Column, columns};
use crate::pack::ASSUMED;
use crate::texts::{Flags, Lists, Numbers, Texts};
use crate::{Error, Stamp};

/// What an Arrow file begins and ends with.
const MAGIC: &[u8] = b"ARROW1";

/// Types within types that are followed.
const MAX_DEPTH: usize = 4;

/// A packed fleet, as it lies in memory or in a mapped file.
#[derive(Clone, Debug)]
pub struct Packed {
    bytes: Bytes,
    fields: Vec<Field>,
    batches: Vec<Batch>,
    stamp: Stamp,
    assumed: Vec<Assumed>,
}

/// A field of the schema, and which node and buffers of a batch are its own.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    kind: Kind,
    node: usize,
    buffer: usize,
    children: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Unsigned numbers of so many bytes.
    Number(usize),
    Bool,
    Text,
    List,
    Struct,
}

/// A batch: how many elements each node has, and where each buffer lies in the file.
#[derive(Clone, Debug)]
struct Batch {
    nodes: Vec<usize>,
    buffers: Vec<(usize, usize)>,
}

impl Packed {
    /// Looks at the footer and the tables of buffers, and at nothing else.
    ///
    /// # Errors
    /// If it is no Arrow file, a damaged one, or not of this schema.
    pub fn open(bytes: Bytes) -> Result<Self, Error> {
        let damaged = Error::Damaged;
        let body =
            bytes.strip_suffix(MAGIC).filter(|body| body.starts_with(MAGIC)).ok_or(damaged("its end is missing"))?;
        let (body, length) = body.split_last_chunk::<4>().ok_or(damaged("it is too short"))?;
        let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| damaged("its footer has no length"))?;
        let start = body.len().checked_sub(length).ok_or(damaged("its footer is longer than the file"))?;
        let footer = body.get(start..).and_then(|footer| root_as_footer(footer).ok()).ok_or(damaged("its footer"))?;
        let schema = footer.schema().ok_or(damaged("it has no schema"))?;
        let pairs = |pairs: Option<flatbuffers::Vector<'_, flatbuffers::ForwardsUOffset<arrow_ipc::KeyValue<'_>>>>| {
            let pair = |pair: arrow_ipc::KeyValue<'_>| Some((pair.key()?.to_owned(), pair.value()?.to_owned()));
            pairs.map(|pairs| pairs.iter().filter_map(pair).collect::<HashMap<_, _>>()).unwrap_or_default()
        };
        let stamp = Stamp::of_metadata(&pairs(schema.custom_metadata()))?;
        let assumed = assumed(pairs(footer.custom_metadata()).get(ASSUMED).map_or("", String::as_str));
        let mut numbers = (0, 0);
        let fields = schema.fields().ok_or(damaged("its schema has no fields"))?;
        let fields =
            fields.iter().map(|field| Field::of(field, &mut numbers, MAX_DEPTH)).collect::<Result<Vec<_>, _>>()?;
        let blocks = footer.recordBatches();
        let blocks = blocks.iter().flat_map(|blocks| blocks.iter());
        let batches = blocks.map(|block| Batch::of(&bytes, block, numbers)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { bytes, fields, batches, stamp, assumed })
    }

    /// For which software its words hold.
    #[must_use]
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// What was assumed of the hosts when they were packed.
    #[must_use]
    pub fn assumed(&self) -> &[Assumed] {
        &self.assumed
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        (0..self.batches.len()).map(|batch| self.part(batch).rows()).sum()
    }

    /// The number of hosts.
    ///
    /// # Errors
    /// If there is no column that counts them.
    pub fn hosts(&self) -> Result<u64, Error> {
        let mut sum = 0_u64;
        for part in self.parts() {
            let hosts = part.numbers("hosts")?;
            sum = hosts.iter().fold(sum, |sum, hosts| sum.saturating_add(hosts.into()));
        }
        Ok(sum)
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        (0..self.batches.len()).map(|batch| self.part(batch))
    }

    fn part(&self, batch: usize) -> Part<'_> {
        Part { packed: self, batch }
    }

    /// The columns of feature bits that the file has. One that it lacks is of a word that its QEMU does not have.
    pub(crate) fn words(&self) -> Vec<(&'static Column, usize)> {
        let known: HashMap<&str, usize> =
            self.fields.iter().enumerate().map(|(at, field)| (field.name.as_str(), at)).collect();
        columns().iter().filter_map(|column| Some((column, *known.get(column.name.as_str())?))).collect()
    }
}

/// One batch of a file.
#[derive(Clone, Copy)]
pub(crate) struct Part<'p> {
    packed: &'p Packed,
    batch: usize,
}

impl<'p> Part<'p> {
    /// The number of rows.
    pub(crate) fn rows(self) -> usize {
        self.packed.batches.get(self.batch).and_then(|batch| batch.nodes.first()).copied().unwrap_or(0)
    }

    /// A column of numbers by its name.
    pub(crate) fn numbers(self, name: &str) -> Result<Numbers<'p>, Error> {
        self.of(self.field(name)?).numbers()
    }

    /// A column of feature bits by its place in the schema.
    pub(crate) fn word(self, at: usize) -> Result<Numbers<'p>, Error> {
        self.of(self.packed.fields.get(at).ok_or(Error::Damaged("a column"))?).numbers()
    }

    /// A column of texts.
    pub(crate) fn texts(self, name: &str) -> Result<Texts<'p>, Error> {
        self.of(self.field(name)?).texts()
    }

    /// The hosts of each row: where they begin and end among all, and their fields.
    pub(crate) fn members(self) -> Result<(Lists<'p>, Members<'p>), Error> {
        let list = self.of(self.field("members")?);
        let element = list.field.children.first().ok_or(Error::Damaged("the type of `members`"))?;
        Ok((list.lists()?, Members(self.of(element))))
    }

    fn field(self, name: &str) -> Result<&'p Field, Error> {
        let found = self.packed.fields.iter().find(|field| field.name == name);
        found.ok_or_else(|| Error::Foreign(format!("it has no column `{name}`")))
    }

    fn of(self, field: &'p Field) -> Buffers<'p> {
        Buffers { part: self, field }
    }
}

/// The hosts of a batch, each once.
#[derive(Clone, Copy)]
pub(crate) struct Members<'p>(Buffers<'p>);

impl<'p> Members<'p> {
    fn child(self, name: &str) -> Result<Buffers<'p>, Error> {
        let found = self.0.field.children.iter().find(|child| child.name == name);
        found.map(|field| self.0.part.of(field)).ok_or_else(|| Error::Foreign(format!("`members` has no `{name}`")))
    }

    pub(crate) fn texts(self, name: &str) -> Result<Texts<'p>, Error> {
        self.child(name)?.texts()
    }

    pub(crate) fn numbers(self, name: &str) -> Result<Numbers<'p>, Error> {
        self.child(name)?.numbers()
    }

    pub(crate) fn longs(self, name: &str) -> Result<Numbers<'p, 8>, Error> {
        self.child(name)?.numbers()
    }

    pub(crate) fn flags(self, name: &str) -> Result<Flags<'p>, Error> {
        let child = self.child(name)?;
        child.is(Kind::Bool)?;
        Flags::of(child.buffer(1)?, child.rows()?)
    }
}

/// A column of a batch.
#[derive(Clone, Copy)]
struct Buffers<'p> {
    part: Part<'p>,
    field: &'p Field,
}

impl<'p> Buffers<'p> {
    fn is(self, kind: Kind) -> Result<(), Error> {
        let known = self.field.kind == kind;
        known.then_some(()).ok_or_else(|| Error::Foreign(format!("`{}` is of another type", self.field.name)))
    }

    fn batch(self) -> Result<&'p Batch, Error> {
        self.part.packed.batches.get(self.part.batch).ok_or(Error::Damaged("a batch"))
    }

    fn rows(self) -> Result<usize, Error> {
        self.batch()?.nodes.get(self.field.node).copied().ok_or(Error::Damaged("a column's length"))
    }

    /// A buffer of the column: 0 says which elements are there at all.
    fn buffer(self, number: usize) -> Result<&'p [u8], Error> {
        let place = self.batch()?.buffers.get(self.field.buffer + number);
        let &(start, end) = place.ok_or(Error::Damaged("a column's buffers"))?;
        self.part.packed.bytes.get(start..end).ok_or(Error::Damaged("a buffer outside the file"))
    }

    /// Which elements are there; `None` if all are.
    fn valid(self) -> Result<Option<Flags<'p>>, Error> {
        let bits = self.buffer(0)?;
        if bits.is_empty() { Ok(None) } else { Flags::of(bits, self.rows()?).map(Some) }
    }

    fn numbers<const SIZE: usize>(self) -> Result<Numbers<'p, SIZE>, Error> {
        self.is(Kind::Number(SIZE))?;
        Numbers::of(self.buffer(1)?, self.rows()?, self.valid()?)
    }

    fn texts(self) -> Result<Texts<'p>, Error> {
        self.is(Kind::Text)?;
        Texts::of(Lists::of(self.buffer(1)?, self.rows()?)?, self.buffer(2)?, self.valid()?)
    }

    fn lists(self) -> Result<Lists<'p>, Error> {
        self.is(Kind::List)?;
        Lists::of(self.buffer(1)?, self.rows()?)
    }
}

impl Field {
    /// A field and those within it; `numbers` are those of the next node and the next buffer.
    fn of(field: FbField<'_>, numbers: &mut (usize, usize), depth: usize) -> Result<Self, Error> {
        let name = field.name().unwrap_or_default().to_owned();
        let other = || Error::Foreign(format!("the type of its column `{name}` is not known here"));
        let kind = match field.type_type() {
            _ if field.dictionary().is_some() || depth == 0 => return Err(other()),
            Type::Int => match field.type_as_int().map(|int| (int.is_signed(), int.bitWidth())) {
                Some((false, 32)) => Kind::Number(4),
                Some((false, 64)) => Kind::Number(8),
                _ => return Err(other()),
            },
            Type::Bool => Kind::Bool,
            Type::Utf8 => Kind::Text,
            Type::List => Kind::List,
            Type::Struct_ => Kind::Struct,
            _ => return Err(other()),
        };
        let (node, buffer) = *numbers;
        let buffers = match kind {
            Kind::Struct => 1,
            Kind::Number(_) | Kind::Bool | Kind::List => 2,
            Kind::Text => 3,
        };
        *numbers = (node + 1, buffer + buffers);
        let children = field.children();
        let children = children.iter().flat_map(|children| children.iter());
        let children = children.map(|child| Self::of(child, numbers, depth - 1)).collect::<Result<_, _>>()?;
        Ok(Self { name, kind, node, buffer, children })
    }
}

impl Batch {
    fn of(bytes: &[u8], block: &Block, (nodes, buffers): (usize, usize)) -> Result<Self, Error> {
        let damaged = || Error::Damaged("the place of a batch");
        let number = |number: i64| usize::try_from(number).map_err(|_| damaged());
        let start = number(block.offset())?;
        let table = start.checked_add(number(block.metaDataLength().into())?).ok_or_else(damaged)?;
        let message = bytes.get(start..table).ok_or_else(damaged)?;
        // Four bytes of ones and a length; without the ones before Arrow 0.15.
        let message = message.strip_prefix(&[0xff; 4]).unwrap_or(message);
        let message = message.get(4..).and_then(|message| root_as_message(message).ok()).ok_or_else(damaged)?;
        let batch = message.header_as_record_batch().ok_or_else(damaged)?;
        if batch.compression().is_some() {
            return Err(Error::Foreign("it is compressed, and compressed files cannot be mapped".to_owned()));
        }
        let place = |buffer: &arrow_ipc::Buffer| {
            let start = table.checked_add(number(buffer.offset())?).ok_or_else(damaged)?;
            Ok((start, start.checked_add(number(buffer.length())?).ok_or_else(damaged)?))
        };
        let places =
            batch.buffers().into_iter().flat_map(|all| all.iter()).map(place).collect::<Result<Vec<_>, Error>>()?;
        let lengths = batch.nodes().into_iter().flat_map(|all| all.iter()).map(|node| number(node.length()));
        let lengths = lengths.collect::<Result<Vec<_>, _>>()?;
        if (lengths.len(), places.len()) != (nodes, buffers) {
            return Err(Error::Damaged("a batch has other columns than the schema"));
        }
        Ok(Self { nodes: lengths, buffers: places })
    }
}

fn assumed(text: &str) -> Vec<Assumed> {
    let all: Value = serde_json::from_str(text).unwrap_or_default();
    let one = |one: &Value| {
        let text = |key: &str| Some(one.get(key)?.as_str()?.to_owned());
        let hosts = usize::try_from(one.get("hosts")?.as_u64()?).ok()?;
        Some(Assumed { what: text("what")?, value: text("value")?, because: text("because")?, hosts })
    };
    all.as_array().map(|all| all.iter().filter_map(one).collect()).unwrap_or_default()
}
