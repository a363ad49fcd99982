//! Values of model-specific registers.

use std::collections::BTreeMap;

use crate::{MsrBit, State};

/// What a read of an MSR gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MsrReading {
    /// The 64-bit value.
    Value(u64),
    /// The read was refused: RDMSR faulted (the CPU or the hypervisor does not have the MSR).
    Unreadable,
}

/// The MSRs of one CPU, by index. What is not in the table was not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MsrTable {
    readings: BTreeMap<u32, MsrReading>,
}

impl MsrTable {
    /// Puts a reading in, and returns the one that stood there before.
    pub fn insert(&mut self, index: u32, reading: MsrReading) -> Option<MsrReading> {
        self.readings.insert(index, reading)
    }

    /// The value of an MSR, if it was read and gave one.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<u64> {
        match self.readings.get(&index)? {
            MsrReading::Value(value) => Some(*value),
            MsrReading::Unreadable => None,
        }
    }

    /// All readings, by index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, MsrReading)> + '_ {
        self.readings.iter().map(|(&index, &reading)| (index, reading))
    }

    /// The number of readings, unreadable ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.readings.len()
    }

    /// Whether no MSR was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.readings.is_empty()
    }

    /// What this table says of one bit.
    #[must_use]
    pub fn state(&self, bit: MsrBit) -> State {
        match self.readings.get(&bit.index) {
            None => State::Unknown,
            Some(MsrReading::Unreadable) => State::Unreadable,
            Some(MsrReading::Value(value)) => State::from_bit(value >> bit.bit & 1 == 1),
        }
    }
}
