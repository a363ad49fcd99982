//! Columns of a batch, as they lie in the file: numbers, bits, texts, lists. Reading outside them gives nothing.

use crate::Error;

/// Unsigned numbers of `SIZE` bytes, the lowest first.
#[derive(Clone, Copy)]
pub(crate) struct Numbers<'p, const SIZE: usize = 4> {
    all: &'p [[u8; SIZE]],
    valid: Option<Flags<'p>>,
}

impl<'p, const SIZE: usize> Numbers<'p, SIZE> {
    pub(crate) fn of(bytes: &'p [u8], rows: usize, valid: Option<Flags<'p>>) -> Result<Self, Error> {
        let (all, _) = bytes.as_chunks();
        Ok(Self { all: all.get(..rows).ok_or(Error::Damaged("a column of numbers is too short"))?, valid })
    }

    /// The bytes of each number.
    pub(crate) const fn all(self) -> &'p [[u8; SIZE]] {
        self.all
    }

    fn valid(self, at: usize) -> bool {
        self.valid.is_none_or(|valid| valid.get(at))
    }
}

impl<'p> Numbers<'p> {
    /// The numbers, whether they are there or not.
    pub(crate) fn iter(self) -> impl Iterator<Item = u32> + 'p {
        self.all.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    pub(crate) fn get(self, at: usize) -> Option<u32> {
        self.all.get(at).filter(|_| self.valid(at)).map(|bytes| u32::from_le_bytes(*bytes))
    }
}

impl Numbers<'_, 8> {
    pub(crate) fn long(self, at: usize) -> Option<u64> {
        self.all.get(at).filter(|_| self.valid(at)).map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// Bits, the lowest of a byte first.
#[derive(Clone, Copy)]
pub(crate) struct Flags<'p> {
    bytes: &'p [u8],
    rows: usize,
}

impl<'p> Flags<'p> {
    pub(crate) fn of(bytes: &'p [u8], rows: usize) -> Result<Self, Error> {
        let bytes = bytes.get(..rows.div_ceil(8)).ok_or(Error::Damaged("a column of bits is too short"))?;
        Ok(Self { bytes, rows })
    }

    pub(crate) fn get(self, at: usize) -> bool {
        at < self.rows && self.bytes.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
    }

    /// How many are set.
    pub(crate) fn count(self) -> usize {
        (0..self.rows).filter(|&at| self.get(at)).count()
    }
}

/// Where lists begin and end among all their elements.
#[derive(Clone, Copy)]
pub(crate) struct Lists<'p>(&'p [[u8; 4]]);

impl<'p> Lists<'p> {
    pub(crate) fn of(bytes: &'p [u8], rows: usize) -> Result<Self, Error> {
        let (all, _) = bytes.as_chunks();
        // A column without rows may have no offsets at all.
        let needed = if rows == 0 { 0 } else { rows.saturating_add(1) };
        Ok(Self(all.get(..needed).ok_or(Error::Damaged("a column of offsets is too short"))?))
    }

    pub(crate) fn get(self, at: usize) -> Option<std::ops::Range<usize>> {
        let end = |at: usize| usize::try_from(i32::from_le_bytes(*self.0.get(at)?)).ok();
        let (start, end) = (end(at)?, end(at.checked_add(1)?)?);
        (start <= end).then_some(start..end)
    }
}

/// Texts.
#[derive(Clone, Copy)]
pub(crate) struct Texts<'p> {
    lists: Lists<'p>,
    bytes: &'p [u8],
    valid: Option<Flags<'p>>,
}

impl<'p> Texts<'p> {
    pub(crate) fn of(lists: Lists<'p>, bytes: &'p [u8], valid: Option<Flags<'p>>) -> Result<Self, Error> {
        Ok(Self { lists, bytes, valid })
    }

    /// The bytes of a text; `None` if there is none.
    pub(crate) fn bytes(self, at: usize) -> Option<&'p [u8]> {
        let there = self.valid.is_none_or(|valid| valid.get(at));
        self.bytes.get(self.lists.get(at).filter(|_| there)?)
    }

    /// A text; `None` if there is none, or it is not UTF-8.
    pub(crate) fn get(self, at: usize) -> Option<&'p str> {
        std::str::from_utf8(self.bytes(at)?).ok()
    }
}
